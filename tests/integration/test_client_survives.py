"""The SDK against a whole gateway, through a link that is cut under it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from cluster.engine.sim import SimSettings, SimTiming
from services.client import Client, Delta, Finished, HeadraceError, Resume, Started, Used
from services.core.errors import StoreAway
from services.gateway.app import Stores
from services.journal.port import JournalStore
from tests.integration.test_generate import answer_of
from tests.support.gateway import Endpoint, ask, memory_stores, running_gateway, until
from tests.support.proxy import Proxy, running_proxy

SLOW = SimSettings(timing=SimTiming(step_s=0.002, scale=1), context_length=2048, vocab_size=49152)
SOON = Resume(first_pause=0.02, longest_pause=0.2)
TOKENS = 300


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Client, Endpoint, Proxy]]:
    async with (
        running_gateway(sim=SLOW) as endpoint,
        running_proxy("127.0.0.1", int(endpoint.address.rpartition(":")[2])) as proxy,
        Client(f"127.0.0.1:{proxy.port}", endpoint.key, resume=SOON) as client,
    ):
        yield client, endpoint, proxy


def busy(endpoint: Endpoint) -> int:
    return int(endpoint.replicas[0].engine.load().running)


async def test_a_stream_cut_many_times_is_the_oracles_answer() -> None:
    async with linked() as (client, endpoint, proxy):
        stream, text, tokens, seqs = client.stream("go on", max_tokens=TOKENS), "", 0, list[int]()
        async for event in stream:
            seqs.append(event.seq)
            if isinstance(event, Delta):
                text, before = text + event.text, tokens
                tokens += event.tokens
                if tokens // 60 > before // 60 and tokens < TOKENS:
                    proxy.cut()
        assert text == answer_of(endpoint, ask("go on"), TOKENS)
        assert (tokens, stream.resumes) == (TOKENS, 4)
        assert seqs == sorted(set(seqs))


async def test_generate_whose_connection_is_cut_gets_the_answer_of_the_one_turn() -> None:
    async with linked() as (client, endpoint, proxy):
        asking = asyncio.create_task(client.generate("go on", max_tokens=TOKENS))
        await until(lambda: busy(endpoint) == 1)
        proxy.cut()
        answer = await asking
        assert answer.message.text == answer_of(endpoint, ask("go on"), TOKENS)
        assert (answer.usage.completion_tokens, proxy.cuts > 0) == (TOKENS, True)
        assert endpoint.replicas[0].engine.load().steps < 2 * TOKENS


async def test_a_key_names_one_turn_for_streams_and_answers_alike() -> None:
    async with linked() as (client, _, _):
        first = await client.generate("go on", max_tokens=9, idempotency_key="k")
        stream = client.stream("go on", max_tokens=9, idempotency_key="k")
        events = [event async for event in stream]
        with pytest.raises(HeadraceError) as other:
            await client.generate("something else", max_tokens=9, idempotency_key="k")
    assert stream.turn == first.turn
    assert "".join(event.text for event in events if isinstance(event, Delta)) == first.message.text
    assert other.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_leaving_early_frees_the_engine_though_the_turn_could_linger() -> None:
    async with linked() as (client, endpoint, _):
        async with client.stream("go on", max_tokens=2000, linger=3600) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    break
        await until(lambda: busy(endpoint) == 0)
        assert (await client.turn(stream.turn)).state == "failed"


async def test_a_turn_is_started_left_looked_at_and_read() -> None:
    async with linked() as (client, endpoint, _):
        begun = await client.start("go on", max_tokens=TOKENS)
        async with client.resume(begun.id) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    break
        seen = await client.turn(begun.id)
        assert (seen.state, seen.answer) == ("running", None)
        rest = [e async for e in client.resume(begun.id, after_seq=stream.seq, epoch=stream.epoch)]
        assert isinstance(rest[-1], Finished)
        assert [e.usage.completion_tokens for e in rest if isinstance(e, Used)] == [TOKENS]
        ended = await client.turn(begun.id)
        assert ended.answer is not None
        assert ended.answer.message.text == answer_of(endpoint, ask("go on"), TOKENS)
        assert (await client.cancel(begun.id)).state == "finished"


async def test_a_started_turn_can_be_cancelled() -> None:
    async with linked() as (client, endpoint, _):
        begun = await client.start("go on", max_tokens=2000)
        await client.cancel(begun.id)
        await until(lambda: busy(endpoint) == 0)
        with pytest.raises(HeadraceError) as cancelled:
            _ = [event async for event in client.resume(begun.id)]
        assert (cancelled.value.code, cancelled.value.reached) == (grpc.StatusCode.CANCELLED, True)
        ended = await client.cancel(begun.id)
        assert (ended.state, ended.error and ended.error.outcome) == ("failed", "CANCELLED")


class Away:
    """Takes the place of a journal store that can be away."""

    def __init__(self, store: JournalStore) -> None:
        self._store = store
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            return self._refuse
        return getattr(self._store, name)

    async def _refuse(self, *_: Any, **__: Any) -> None:
        raise StoreAway("away")


async def test_streams_of_the_sdk_begin_and_end_while_the_store_is_away() -> None:
    kept = memory_stores()
    away = Away(kept.journals)
    stores = Stores(kept.keys, kept.sessions, kept.leases, away)  # type: ignore[arg-type]
    async with (
        running_gateway(sim=SLOW, stores=stores) as endpoint,
        Client(endpoint.address, endpoint.key, resume=SOON) as client,
    ):
        running = client.stream("go on", max_tokens=100)
        events = [await anext(aiter(running))]
        away.is_away = True
        events += [event async for event in running]
        new = [event async for event in client.stream("go on", max_tokens=20)]
        answer = await client.generate("go on", max_tokens=20)
    for begun, resumable in ((events, True), (new, False)):
        assert isinstance(begun[0], Started) and begun[0].resumable is resumable
        assert isinstance(begun[-1], Finished)
    assert answer.message.text == answer_of(endpoint, ask("go on"), 20)
