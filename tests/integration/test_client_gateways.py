"""The SDK between gateways that share a store: one of them ends, and its callers notice a pause."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from services.client import Client, Delta, Event, Finished, Resume, Rewind, Stream, Used
from tests.integration.test_generate import answer_of
from tests.support.gateway import ask, until
from tests.support.gateways import Gateway, running_gateways
from tests.support.proxy import Proxy, running_proxy

SOON = Resume(first_pause=0.02, longest_pause=0.2)
TOKENS = 300


@dataclass(slots=True)
class Place:
    """Two gateways; the caller reaches the first one through a link that can be cut."""

    one: Gateway
    two: Gateway
    link: Proxy
    caller: Client

    async def end(self, how: str) -> None:
        if how == "killed":
            # What a gateway of this process says in dying is not to be heard.
            self.link.refuse()
            self.link.cut()
            await self.one.die()
        else:
            await self.one.shut_down()


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        one, two = await stack.enter_async_context(running_gateways(2))
        await two.until_it_judges()
        port = int(one.endpoint.address.rpartition(":")[2])
        link = await stack.enter_async_context(running_proxy("127.0.0.1", port))
        named = f"127.0.0.1:{link.port},{two.endpoint.address}"
        caller = await stack.enter_async_context(Client(named, one.endpoint.key, resume=SOON))
        yield Place(one, two, link, caller)


async def read(stream: Stream, begun: asyncio.Event) -> list[Event]:
    events = []
    async for event in stream:
        events.append(event)
        if isinstance(event, Delta) and stream.seq > 20:
            begun.set()
    return events


@pytest.mark.parametrize("how", ["killed", "shut down"])
async def test_streams_of_a_gateway_that_ends_are_the_oracles_answers(how: str) -> None:
    async with place() as here:
        streams = [here.caller.stream(f"story {number}", max_tokens=TOKENS) for number in range(4)]
        begun = [asyncio.Event() for _ in streams]
        reading = [asyncio.create_task(read(*each)) for each in zip(streams, begun, strict=True)]
        for each in begun:
            await each.wait()
        await here.end(how)
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*reading)
        expected = [answer_of(here.two.endpoint, ask(f"story {number}"), TOKENS) for number in range(4)]
    for stream, events, text in zip(streams, answers, expected, strict=True):
        assert not any(isinstance(event, Rewind) for event in events)
        deltas = [event for event in events if isinstance(event, Delta)]
        assert "".join(event.text for event in deltas) == text
        assert sum(event.tokens for event in deltas) == TOKENS
        [used] = [event.usage for event in events if isinstance(event, Used)]
        assert (used.completion_tokens, used.takeovers) == (TOKENS, 1)
        assert isinstance(events[-1], Finished)
        assert stream.resumes >= 1


async def test_generate_outlives_the_gateway_that_ran_it() -> None:
    async with place() as here:
        asking = asyncio.create_task(here.caller.generate("go on", max_tokens=TOKENS))
        turns = here.one.endpoint.deps.turns
        await until(lambda: any(len(turn.journal) > 20 for turn in turns.all()))
        await here.end("killed")
        async with asyncio.timeout(20):
            answer = await asking
        assert answer.message.text == answer_of(here.two.endpoint, ask("go on"), TOKENS)
        assert (answer.usage.completion_tokens, answer.usage.takeovers) == (TOKENS, 1)
