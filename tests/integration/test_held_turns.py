"""Turns that the gateway holds until a replica has room: none lives yet, or each is full."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.backend.memory import MemoryLeases
from services.client import Client, Delta, Event, Finished, Started, Waiting
from tests.hostile.test_bad_input import details
from tests.integration.test_generate import text_of
from tests.integration.test_replicas import QUICK, SLOW, first_delta, hold
from tests.support.gateway import (
    MODEL,
    Endpoint,
    SimReplica,
    ask,
    memory_stores,
    mint_key,
    running_gateway,
    sim_replica,
    until,
)
from tests.support.gateways import gateway_on, rest

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


async def arrive(endpoint: Endpoint, replica: SimReplica) -> None:
    """The gateway hears of the replica."""
    leases = endpoint.stores.leases
    assert isinstance(leases, MemoryLeases)
    leases.leases.append(replica.lease)
    await endpoint.deps.directory.refresh()


def stream(endpoint: Endpoint, text: str, key: str = "", **fields: int) -> grpc.aio.UnaryStreamCall:
    auth = (("authorization", f"Bearer {key}"),) if key else endpoint.auth
    return endpoint.inference.StreamGenerate(ask(text, **fields), metadata=auth, timeout=30)


async def step(call: grpc.aio.UnaryStreamCall) -> pb.StreamEvent:
    event: pb.StreamEvent = await anext(aiter(call))
    return event


async def waiting(call: grpc.aio.UnaryStreamCall) -> pb.StreamEvent:
    """The first event that says so; the turn has started by then."""
    started, told = await step(call), await step(call)
    assert started.HasField("started") and told.HasField("waiting"), told
    return told


async def refused(call: grpc.aio.UnaryStreamCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await rest(call)
    return refusal.value


def packed(error: grpc.aio.AioRpcError) -> bytes:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return details if isinstance(details, bytes) else details.encode()


def held(endpoint: Endpoint) -> int:
    return endpoint.deps.waiting.held(MODEL)


async def test_a_turn_waits_for_the_replica_that_wakes_and_loses_nothing() -> None:
    async with running_gateway(replicas=0, hold=30) as endpoint, AsyncExitStack() as stack:
        call = stream(endpoint, "wake up", max_tokens=8)
        told = await waiting(call)
        assert told.waiting.reason == pb.Waiting.NO_REPLICA and told.waiting.position == 1
        await arrive(endpoint, await stack.enter_async_context(sim_replica("late", QUICK)))
        events = await rest(call)
        assert events[-1].finished.reason == pb.FINISH_REASON_LENGTH
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        assert min(event.seq for event in events) == told.seq + 1
        await until(lambda: held(endpoint) == 0)


async def test_a_reader_that_resumes_is_told_of_the_wait_once_and_at_the_same_place() -> None:
    async with running_gateway(replicas=0, hold=30, linger=30) as endpoint, AsyncExitStack() as stack:
        call = stream(endpoint, "wake up", max_tokens=8)
        turn = (await step(call)).started.turn
        told = await step(call)
        call.cancel()
        position = pb.ResumeTurnRequest(turn=turn, after_seq=told.seq)
        ahead = endpoint.inference.ResumeTurn(position, metadata=endpoint.auth)
        await arrive(endpoint, await stack.enter_async_context(sim_replica("late", QUICK)))
        followed = await rest(ahead)
        assert not any(event.HasField("waiting") for event in followed)
        again = await rest(
            endpoint.inference.ResumeTurn(pb.ResumeTurnRequest(turn=turn), metadata=endpoint.auth)
        )
        assert [event.seq for event in again if event.HasField("waiting")] == [told.seq]
        assert text_of(again) == text_of(followed)


async def test_a_turn_that_nothing_wakes_for_is_refused_after_its_hold() -> None:
    async with running_gateway(replicas=0, hold=0.2) as endpoint:
        error = await refused(stream(endpoint, "nobody", max_tokens=8))
        assert error.code() is UNAVAILABLE
        assert error.details() == f"no replica of {MODEL} is connected after 0.2 s"
        assert endpoint.deps.waiting.refused(MODEL) == 1 and held(endpoint) == 0


async def test_a_turn_waits_for_room_on_a_full_replica() -> None:
    async with running_gateway(sim=SLOW, capacity=1, hold=30) as endpoint:
        [running] = await hold(endpoint, 1)
        call = stream(endpoint, "next", max_tokens=4)
        assert (await waiting(call)).waiting.reason == pb.Waiting.FULL
        running.cancel()
        assert (await rest(call))[-1].HasField("finished")


async def test_room_goes_to_the_tenants_in_turn() -> None:
    stores = memory_stores()
    other = await mint_key(stores, "other")
    async with running_gateway(sim=SLOW, stores=stores, capacity=1, hold=30) as endpoint:
        [running] = await hold(endpoint, 1)
        mine = [stream(endpoint, f"mine {i}", max_tokens=4) for i in range(3)]
        assert [(await waiting(call)).waiting.position for call in mine] == [1, 2, 3]
        theirs = stream(endpoint, "theirs", other, max_tokens=4)
        assert (await waiting(theirs)).waiting.position == 2
        ends: list[str] = []

        async def end(name: str, call: grpc.aio.UnaryStreamCall) -> None:
            await rest(call)
            ends.append(name)

        running.cancel()
        named = [*((f"mine {i}", call) for i, call in enumerate(mine)), ("theirs", theirs)]
        await asyncio.gather(*(end(name, call) for name, call in named))
        assert ends == ["mine 0", "theirs", "mine 1", "mine 2"]


async def test_a_full_waiting_room_refuses_with_a_delay_and_a_tenant_cannot_fill_it() -> None:
    stores = memory_stores()
    other = await mint_key(stores, "other")
    async with running_gateway(replicas=0, stores=stores, hold=30, max_held=4) as endpoint:
        calls = [stream(endpoint, f"held {i}", max_tokens=4) for i in range(3)]
        for call in calls:
            await waiting(call)
        error = await refused(stream(endpoint, "one more", max_tokens=4))
        assert error.code() is UNAVAILABLE and "holds its limit of 4 turns" in (error.details() or "")
        assert details(error)[1] == "NO_REPLICA" and b"RetryInfo" in packed(error)
        await waiting(stream(endpoint, "another tenant's", other, max_tokens=4))
        assert held(endpoint) == 4


async def test_a_held_turn_ends_with_its_deadline() -> None:
    async with running_gateway(replicas=0, hold=30) as endpoint:
        call = stream(endpoint, "hurry", max_tokens=4, timeout_seconds=1)
        await waiting(call)
        assert (await refused(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: held(endpoint) == 0)


async def test_a_cancelled_turn_gives_up_its_place() -> None:
    async with running_gateway(replicas=0, hold=30) as endpoint:
        call = stream(endpoint, "never mind", max_tokens=4)
        turn = (await step(call)).started.turn
        await step(call)
        await endpoint.inference.CancelTurn(pb.CancelTurnRequest(turn=turn), metadata=endpoint.auth)
        assert (await refused(call)).code() is grpc.StatusCode.CANCELLED
        assert held(endpoint) == 0


async def test_a_caller_that_goes_away_gives_up_its_place() -> None:
    async with running_gateway(replicas=0, hold=30) as endpoint:
        call = stream(endpoint, "never mind", max_tokens=4, linger_seconds=0)
        await waiting(call)
        call.cancel()
        await until(lambda: held(endpoint) == 0)


async def test_several_answers_of_a_turn_wait_together() -> None:
    async with running_gateway(replicas=0, hold=30) as endpoint, AsyncExitStack() as stack:
        call = stream(endpoint, "three", max_tokens=4, n=3)
        await waiting(call)
        await until(lambda: held(endpoint) == 3)
        await arrive(endpoint, await stack.enter_async_context(sim_replica("late", QUICK)))
        assert len((await rest(call))[-1].finished.more) == 2


async def test_a_held_turn_goes_on_waiting_at_another_gateway_when_its_own_shuts_down() -> None:
    stores = memory_stores()
    key = await mint_key(stores)
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(gateway_on(stores, [], key, hold=30, max_held=1))
            for _ in range(2)
        ]
        await two.until_it_judges()
        call = stream(one.endpoint, "wake up", max_tokens=8)
        turn = (await step(call)).started.turn
        told = await step(call)
        stack.callback(call.cancel)
        await waiting(stream(two.endpoint, "two holds its limit", max_tokens=4))
        await one.shut_down()
        position = pb.ResumeTurnRequest(turn=turn, after_seq=told.seq)
        resumed = two.endpoint.inference.ResumeTurn(position, metadata=two.endpoint.auth)
        await until(lambda: held(two.endpoint) == 2)
        late = await stack.enter_async_context(sim_replica("late", QUICK))
        assert isinstance(stores.leases, MemoryLeases)
        stores.leases.leases.append(late.lease)
        events = await rest(resumed)
        assert events[-1].HasField("finished") and text_of(events)


async def test_turns_are_refused_at_once_where_none_are_held() -> None:
    async with running_gateway(replicas=0) as endpoint:
        error = await refused(stream(endpoint, "nobody", max_tokens=8))
        assert (error.code(), error.details()) == (UNAVAILABLE, f"no replica of {MODEL} is connected")
    async with running_gateway(sim=SLOW, capacity=1) as endpoint:
        [running] = await hold(endpoint, 1)
        assert (await refused(stream(endpoint, "full", max_tokens=8))).code() is EXHAUSTED
        await first_delta(running)
        running.cancel()


async def test_the_client_tells_of_the_wait() -> None:
    async with running_gateway(replicas=0, hold=30) as endpoint, AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(endpoint.address, endpoint.key))
        late = await stack.enter_async_context(sim_replica("late", QUICK))
        events: list[Event] = []
        async for event in client.stream("hello", max_tokens=4):
            events.append(event)
            if isinstance(event, Waiting):
                await arrive(endpoint, late)
        assert [type(event) for event in events[:2]] == [Started, Waiting]
        assert isinstance(events[1], Waiting) and events[1].reason == "no_replica"
        assert any(isinstance(event, Delta) for event in events) and isinstance(events[-1], Finished)
