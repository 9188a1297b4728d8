"""A turn is read from any gateway, from any position, and outlives the gateway that runs it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.clock import RandomIds, SystemClock
from services.gateway.app import Stores
from services.journal.redis import RedisJournalStore
from services.sessions.redis import RedisSessionStore
from services.store.cipher import Plain
from tests.integration.test_generate import answer_of, text_of
from tests.support.gateway import ask, memory_stores, until
from tests.support.gateways import Gateway, first, rest, running_gateways
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401

TOKENS = 300


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        return memory_stores()
    client = request.getfixturevalue("valkey_client")
    return replace(
        memory_stores(),
        journals=RedisJournalStore(client, lambda tenant, turn: Plain()),
        sessions=RedisSessionStore(client, SystemClock(), RandomIds()),
    )


def resumed(gateway: Gateway, events: Sequence[pb.StreamEvent]) -> object:
    last = events[-1]
    request = pb.ResumeTurnRequest(turn=events[0].started.turn, after_seq=last.seq, epoch=last.epoch)
    return gateway.endpoint.inference.ResumeTurn(request, metadata=gateway.endpoint.auth)


def joined(before: Sequence[pb.StreamEvent], after: Sequence[pb.StreamEvent]) -> str:
    """The text that a client has after a resume, rewinds obeyed."""
    text = text_of(before)
    for event in after:
        if event.HasField("rewind"):
            text = event.rewind.answers[0].content[0].text
        text += event.delta.text
    return text


def check_numbers(events: Sequence[pb.StreamEvent]) -> None:
    positions = [(e.epoch, e.seq) for e in events if not e.HasField("rewind")]
    assert positions == sorted(set(positions))


@pytest.mark.parametrize("deltas", [1, 20])
async def test_a_stream_that_broke_is_resumed_at_the_same_gateway(stores: Stores, deltas: int) -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateways(1, stores) as [one]:
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        before = await first(call, deltas)
        call.cancel()
        after = await rest(resumed(one, before))
        assert joined(before, after) == answer_of(one.endpoint, request, TOKENS)
        assert after[-1].HasField("finished") and not any(e.HasField("rewind") for e in after)
        check_numbers([*before, *after])


@pytest.mark.parametrize("deltas", [1, 20])
async def test_a_stream_that_broke_is_resumed_at_another_gateway(stores: Stores, deltas: int) -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateways(2, stores) as [one, two]:
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        before = await first(call, deltas)
        call.cancel()
        after = await rest(resumed(two, before))
        assert joined(before, after) == answer_of(one.endpoint, request, TOKENS)
        assert not any(e.HasField("rewind") for e in after)
        check_numbers([*before, *after])


@pytest.mark.parametrize("deltas", [1, 20, 60])
async def test_a_turn_outlives_its_gateway(stores: Stores, deltas: int) -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateways(2, stores) as [one, two]:
        await two.until_it_judges()
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        before = await first(call, deltas)
        await one.die()
        after = await rest(resumed(two, before))
        assert joined(before, after) == answer_of(one.endpoint, request, TOKENS)
        usage = next(e.usage for e in after if e.HasField("usage"))
        assert (usage.takeovers, usage.completion_tokens) == (1, TOKENS)
        epochs = {e.epoch for e in after if not e.HasField("rewind")} | {0}
        assert len(epochs) == 2 and after[-1].epoch == max(epochs)
        check_numbers([*before, *after])


async def test_a_gateway_that_shuts_down_hands_its_turns_over_at_once(stores: Stores) -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateways(2, stores) as [one, two]:
        await two.until_it_judges()
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        before = await first(call, 20)
        down = asyncio.create_task(one.shut_down())
        with pytest.raises(grpc.aio.AioRpcError) as end:
            async for event in call:
                before.append(event)
        assert end.value.code() is grpc.StatusCode.UNAVAILABLE and "resume" in str(end.value.details())
        after = await rest(resumed(two, before))
        assert joined(before, after) == answer_of(one.endpoint, request, TOKENS)
        assert not any(e.HasField("rewind") for e in after)  # everything was flushed before
        await down


async def test_a_gateway_that_lost_its_turns_sends_their_readers_on(stores: Stores) -> None:
    """It was cut off from the store, or stood still, for longer than its lease; its readers are still there."""
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateways(2, stores) as [one, two]:
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        before = await first(call, 20)
        turn = before[0].started.turn
        await two.takeover._take(turn, one.endpoint.deps.name)
        after = await rest(call)
        assert joined(before, after) == answer_of(one.endpoint, request, TOKENS)
        assert after[-1].epoch > 0 and after[-1].HasField("finished")
        await until(lambda: not one.endpoint.deps.recorder)


async def test_a_finished_turn_is_read_again_from_anywhere(stores: Stores) -> None:
    request = ask("hello", max_tokens=20)
    async with running_gateways(2, stores) as [one, two]:
        events = await one.endpoint.stream(request)
        for seq in (0, 1, events[-2].seq):
            again = await rest(resumed(two, [replace_seq(events, seq)]))
            assert text_of(again) == "".join(e.delta.text for e in events if e.seq > seq)
            assert again[-1] == events[-1]
        assert await rest(resumed(two, [replace_seq(events, events[-1].seq)])) == []


def replace_seq(events: Sequence[pb.StreamEvent], seq: int) -> pb.StreamEvent:
    position = pb.StreamEvent(seq=seq)
    position.started.turn = events[0].started.turn
    return position


async def test_positions_and_turns_that_never_were_are_refused(stores: Stores) -> None:
    async with running_gateways(2, stores) as [one, two]:
        events = await one.endpoint.stream(ask("hello", max_tokens=5))
        turn = events[0].started.turn
        for gateway in (one, two):
            for request, code in [
                (pb.ResumeTurnRequest(turn=turn, after_seq=99), grpc.StatusCode.OUT_OF_RANGE),
                (pb.ResumeTurnRequest(turn=turn, after_seq=-1), grpc.StatusCode.INVALID_ARGUMENT),
                (pb.ResumeTurnRequest(turn=turn, epoch=-1), grpc.StatusCode.INVALID_ARGUMENT),
                (pb.ResumeTurnRequest(turn="turn_" + "0" * 32), grpc.StatusCode.NOT_FOUND),
                (pb.ResumeTurnRequest(turn="{x}*"), grpc.StatusCode.INVALID_ARGUMENT),
            ]:
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    call = gateway.endpoint.inference.ResumeTurn(request, metadata=gateway.endpoint.auth)
                    await rest(call)
                assert refusal.value.code() is code, request
