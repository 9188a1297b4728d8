"""The SDK against a whole gateway in this process, on real gRPC."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from cluster.engine.sim import SimSettings
from services.client import Client, Delta, Finished, HeadraceError, Message, Sampling, Started, Used
from tests.support.gateway import MODEL, Endpoint, running_gateway, until


@asynccontextmanager
async def talking(sim: SimSettings | None = None) -> AsyncIterator[tuple[Client, Endpoint]]:
    async with running_gateway(sim=sim) as endpoint, Client(endpoint.address, endpoint.key) as client:
        yield client, endpoint


async def test_a_stream_starts_flows_and_finishes() -> None:
    async with talking() as (client, _), client.stream("Hello", max_tokens=12) as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], Started) and events[0].turn == stream.turn
    assert isinstance(events[-1], Finished) and events[-1].reason == "length"
    assert sum(event.tokens for event in events if isinstance(event, Delta)) == 12
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert stream.seq == events[-1].seq
    used = [event.usage for event in events if isinstance(event, Used)]
    assert used[-1].completion_tokens == 12


async def test_unary_and_stream_give_the_same_text() -> None:
    async with talking() as (client, _):
        answer = await client.generate("Hello", max_tokens=9, model=MODEL)
        events = [event async for event in client.stream("Hello", max_tokens=9)]
    assert answer.message == Message("assistant", "".join(e.text for e in events if isinstance(e, Delta)))
    assert answer.usage.prompt_tokens > 0


async def test_leaving_a_stream_early_frees_the_engine() -> None:
    async with talking(SimSettings(context_length=2048, vocab_size=49152)) as (client, endpoint):
        async with client.stream("Hello", max_tokens=2000) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    break
        await until(lambda: endpoint.replicas[0].engine.load().running == 0)


async def test_an_error_carries_fields_outcome_and_code() -> None:
    async with talking() as (client, _):
        with pytest.raises(HeadraceError) as refused:
            await client.generate([], max_tokens=0, sampling=Sampling(temperature=math.nan))
    error = refused.value
    assert (error.code, error.outcome, error.reached) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID", True)
    assert error.violations
    assert error.retry_after is None


async def test_a_wrong_key_is_unauthenticated() -> None:
    async with running_gateway() as endpoint, Client(endpoint.address, "hr_wrong") as client:
        with pytest.raises(HeadraceError) as refused:
            await client.models()
    assert refused.value.outcome == "UNAUTHENTICATED"


async def test_an_endpoint_that_is_not_there_was_not_reached() -> None:
    async with Client("127.0.0.1:9", "hr_x", timeout=5) as client:
        with pytest.raises(HeadraceError) as away:
            await client.models()
    assert (away.value.code, away.value.reached) == (grpc.StatusCode.UNAVAILABLE, False)


async def test_sessions_are_created_read_listed_and_deleted() -> None:
    async with talking() as (client, _):
        session = await client.sessions.create([Message("system", "Be brief.")], ttl=600)
        answer = await client.generate("Hello", session=session.id, max_tokens=4)
        kept = await client.sessions.get(session.id)
        assert [message.role for message in kept.messages] == ["system", "user", "assistant"]
        assert kept.messages[2] == answer.message
        assert kept.version == answer.session_version
        assert [each.id async for each in client.sessions.list()] == [session.id]
        await client.sessions.delete(session.id)
        with pytest.raises(HeadraceError, match="session") as gone:
            await client.sessions.get(session.id)
        assert gone.value.outcome == "NOT_FOUND"


async def test_models_and_counts() -> None:
    async with talking() as (client, _):
        [model] = await client.models()
        assert (model.name, model.replicas[0].connected) == (MODEL, True)
        assert await client.model(MODEL) == model
        counted = await client.count_tokens("Hello")
        assert counted == (await client.generate("Hello", max_tokens=1)).usage.prompt_tokens
