"""Turns that are started and left, asked about, cancelled, and asked for twice."""

import asyncio
import base64
from dataclasses import replace
from typing import Any

import grpc
import pytest

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import sessions_pb2
from services.core.outcome import Outcome
from services.gateway.app import ciphers
from services.journal.redis import RedisJournalStore
from services.store.connect import Store
from services.telemetry.metrics import TURNS
from tests.hostile.test_bad_input import details
from tests.integration.test_generate import answer_of, text_of
from tests.support.gateway import (
    MODEL,
    Endpoint,
    ask,
    memory_stores,
    mint_key,
    running_gateway,
    settings,
    until,
)
from tests.support.gateways import first, rest, running_gateways
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401

SLOW = SimSettings(timing=SimTiming(step_s=0.004, scale=1), context_length=2048, vocab_size=49152)


def running(endpoint: Endpoint) -> int:
    return sum(replica.engine.load().running for replica in endpoint.replicas)


def steps(endpoint: Endpoint) -> int:
    return sum(replica.engine.load().steps for replica in endpoint.replicas)


async def get(endpoint: Endpoint, turn: str) -> pb.Turn:
    reply: pb.Turn = await endpoint.inference.GetTurn(pb.GetTurnRequest(turn=turn), metadata=endpoint.auth)
    return reply


async def cancel(endpoint: Endpoint, turn: str) -> pb.Turn:
    request = pb.CancelTurnRequest(turn=turn)
    reply: pb.Turn = await endpoint.inference.CancelTurn(request, metadata=endpoint.auth)
    return reply


async def until_state(endpoint: Endpoint, turn: str, state: Any) -> pb.Turn:
    async with asyncio.timeout(20):
        while (found := await get(endpoint, turn)).state != state:
            await asyncio.sleep(0.02)
    return found


async def test_a_turn_is_started_left_and_come_back_to() -> None:
    request = ask("go on", max_tokens=100)
    async with running_gateways(2, sim=SLOW) as [one, two]:
        started = await one.endpoint.inference.StartTurn(request, metadata=one.endpoint.auth)
        assert started.state == pb.Turn.RUNNING and started.id.startswith("turn_")
        done = await until_state(two.endpoint, started.id, pb.Turn.FINISHED)
        assert done.answer.message.content[0].text == answer_of(one.endpoint, request, 100)
        assert done.answer.usage.completion_tokens == 100
        assert done.answer.finish_reason == pb.FINISH_REASON_LENGTH
        resumed = two.endpoint.inference.ResumeTurn(
            pb.ResumeTurnRequest(turn=started.id), metadata=two.endpoint.auth
        )
        events = await rest(resumed)
        assert events[0].HasField("started") and text_of(events) == answer_of(one.endpoint, request, 100)


async def test_a_turn_that_cannot_start_is_refused_at_once() -> None:
    async with running_gateway(max_turns=1, sim=SLOW) as endpoint:
        first_one = await endpoint.inference.StartTurn(ask(max_tokens=500), metadata=endpoint.auth)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.StartTurn(ask(max_tokens=5), metadata=endpoint.auth)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await cancel(endpoint, first_one.id)


async def test_a_running_turn_is_told_as_far_as_it_is() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        call = one.endpoint.inference.StreamGenerate(ask(max_tokens=500), metadata=one.endpoint.auth)
        events = await first(call, 30)
        for gateway in (one, two):
            async with asyncio.timeout(10):
                while (turn := await get(gateway.endpoint, events[0].started.turn)).seq < events[-1].seq:
                    await asyncio.sleep(0.01)
            assert turn.state == pb.Turn.RUNNING and turn.answer.model == MODEL
            assert turn.answer.message.content[0].text.startswith(text_of(events))
        call.cancel()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_cancel_ends_the_turn_frees_the_engine_and_can_be_repeated(where: str) -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        gateway = one if where == "here" else two
        call = one.endpoint.inference.StreamGenerate(ask(max_tokens=1500), metadata=one.endpoint.auth)
        events = await first(call, 5)
        turn = events[0].started.turn
        await cancel(gateway.endpoint, turn)
        with pytest.raises(grpc.aio.AioRpcError) as end:
            events += await rest(call)
        assert end.value.code() is grpc.StatusCode.CANCELLED
        await until(lambda: not running(one.endpoint))
        for endpoint in (one.endpoint, two.endpoint):
            again = await cancel(endpoint, turn)
            assert again.state == pb.Turn.FAILED and again.error.outcome == "CANCELLED"
            assert again.answer.usage.completion_tokens > 0


async def test_a_cancel_of_a_finished_turn_changes_nothing() -> None:
    async with running_gateways(2) as [one, two]:
        events = await one.endpoint.stream(ask(max_tokens=5))
        for endpoint in (one.endpoint, two.endpoint):
            assert (await cancel(endpoint, events[0].started.turn)).state == pb.Turn.FINISHED


async def test_a_stream_that_nobody_comes_back_to_is_cancelled_after_its_time_to_linger() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        before = TURNS.labels(MODEL, Outcome.CANCELLED)._value.get()
        call = endpoint.inference.StreamGenerate(
            ask(max_tokens=1500, linger_seconds=1), metadata=endpoint.auth
        )
        turn = (await first(call, 5))[0].started.turn
        call.cancel()
        at = steps(endpoint)
        assert (await get(endpoint, turn)).state == pb.Turn.RUNNING
        await until(lambda: TURNS.labels(MODEL, Outcome.CANCELLED)._value.get() > before)
        assert steps(endpoint) - at > 50  # it went on meanwhile
        assert (await get(endpoint, turn)).error.message == "nobody read it for 1 s"


async def test_a_reader_at_another_gateway_keeps_a_turn_alive() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        request = ask(max_tokens=800, linger_seconds=1)
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        before = await first(call, 5)
        call.cancel()
        position = pb.ResumeTurnRequest(turn=before[0].started.turn, after_seq=before[-1].seq)
        after = await rest(two.endpoint.inference.ResumeTurn(position, metadata=two.endpoint.auth))
        assert text_of([*before, *after]) == answer_of(one.endpoint, request, 800)


async def test_copies_of_a_call_with_one_key_run_once() -> None:
    request = ask("go on", max_tokens=60, idempotency_key="order 17")
    async with running_gateways(2, sim=SLOW) as gateways:
        copies = [gateways[i % 2].endpoint.stream(request) for i in range(20)]
        streams = await asyncio.gather(*copies)
        assert len({events[0].started.turn for events in streams}) == 1
        assert {text_of(events) for events in streams} == {answer_of(gateways[0].endpoint, request, 60)}
        assert sum(r.engine.load().steps for r in gateways[0].endpoint.replicas) < 120


async def test_a_key_answers_after_the_turn_has_ended_and_for_unary_calls() -> None:
    request = ask("go on", max_tokens=20, idempotency_key="k")
    async with running_gateways(2) as [one, two]:
        events = await one.endpoint.stream(request)
        reply = await two.endpoint.inference.Generate(request, metadata=two.endpoint.auth)
        assert reply.turn == events[0].started.turn
        assert reply.message.content[0].text == text_of(events)


async def test_a_turn_that_is_started_twice_is_told_as_it_is() -> None:
    request = ask("go on", max_tokens=20, idempotency_key="k")
    async with running_gateways(2) as gateways:
        stubs = [(g.endpoint.inference, g.endpoint.auth) for g in gateways]
        started = await stubs[0][0].StartTurn(request, metadata=stubs[0][1])
        done = await until_state(gateways[0].endpoint, started.id, pb.Turn.FINISHED)
        for stub, auth in stubs:
            assert await stub.StartTurn(request, metadata=auth) == done


async def test_a_key_outlives_the_answer_and_says_so() -> None:
    request = ask("go on", max_tokens=5, idempotency_key="k")
    async with running_gateway(retention=0.05) as endpoint:
        turn = (await endpoint.stream(request))[0].started.turn
        async with asyncio.timeout(10):
            while await endpoint.stores.journals.find(turn) is not None:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(request)
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "not kept any more" in str(refusal.value.details())


async def test_after_the_end_of_a_failed_turn_nothing_follows() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        call = one.endpoint.inference.StreamGenerate(ask(max_tokens=1500), metadata=one.endpoint.auth)
        turn = (await first(call, 3))[0].started.turn
        ended = await cancel(one.endpoint, turn)
        for endpoint in (one.endpoint, two.endpoint):
            position = pb.ResumeTurnRequest(turn=turn, after_seq=ended.seq)
            assert await rest(endpoint.inference.ResumeTurn(position, metadata=endpoint.auth)) == []


async def test_a_turn_keeps_its_key_when_it_changes_hands() -> None:
    """Its ending waits for the store then, and a store that lost the turn gets it with its key."""
    request = ask("go on", max_tokens=300, idempotency_key="k")
    async with running_gateways(2, sim=SLOW) as [one, two]:
        await two.until_it_judges()
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        turn = (await first(call, 5))[0].started.turn
        await one.die()
        await until(lambda: two.endpoint.deps.turns.runs(turn))
        taken = two.endpoint.deps.turns.find(turn, "acme")
        assert taken is not None and taken.asked.life.must_be_kept
        two.endpoint.stores.journals._claims.clear()  # type: ignore[attr-defined]
        two.endpoint.stores.journals._turns.clear()  # type: ignore[attr-defined]
        await until_state(two.endpoint, turn, pb.Turn.FINISHED)
        again = await two.endpoint.stream(request)
        assert again[0].started.turn == turn


async def test_a_key_with_another_request_is_refused_and_other_tenants_have_their_own() -> None:
    async with running_gateway() as endpoint:
        await endpoint.stream(ask("a", max_tokens=5, idempotency_key="k"))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(ask("b", max_tokens=5, idempotency_key="k"))
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        key = await mint_key(endpoint.stores, "globex")
        auth = (("authorization", f"Bearer {key}"),)
        call = endpoint.inference.StreamGenerate(ask("b", max_tokens=5, idempotency_key="k"), metadata=auth)
        assert (await rest(call))[-1].HasField("finished")


async def test_waiting_longer_is_the_same_request() -> None:
    async with running_gateway() as endpoint:
        one = await endpoint.stream(ask("a", max_tokens=5, idempotency_key="k", timeout_seconds=30))
        two = await endpoint.stream(ask("a", max_tokens=5, idempotency_key="k", linger_seconds=3))
        assert one[0].started.turn == two[0].started.turn


async def test_a_call_that_was_refused_before_it_began_can_be_made_again_with_its_key() -> None:
    async with running_gateway(max_turns=1, sim=SLOW) as endpoint:
        busy = await endpoint.inference.StartTurn(ask(max_tokens=500), metadata=endpoint.auth)
        request = ask("a", max_tokens=5, idempotency_key="k")
        with pytest.raises(grpc.aio.AioRpcError):
            await endpoint.stream(request)
        await cancel(endpoint, busy.id)
        await until(lambda: endpoint.deps.admission.held == 0)
        assert (await endpoint.stream(request))[-1].HasField("finished")


async def test_the_turns_own_deadline_outlives_its_call() -> None:
    request = ask("go on", max_tokens=200, timeout_seconds=30)
    async with running_gateway(sim=SLOW) as endpoint:
        call = endpoint.inference.StreamGenerate(request, metadata=endpoint.auth, timeout=0.3)
        events = []
        with pytest.raises(grpc.aio.AioRpcError):
            async for event in call:
                events.append(event)
        turn = events[0].started.turn
        done = await until_state(endpoint, turn, pb.Turn.FINISHED)
        assert done.answer.message.content[0].text == answer_of(endpoint, request, 200)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"idempotency_key": "a\nb"}, "idempotency_key"),
        ({"idempotency_key": "schlüssel"}, "idempotency_key"),
        ({"linger_seconds": -1}, "linger_seconds"),
        ({"linger_seconds": 3601}, "linger_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 601}, "timeout_seconds"),
        ({"session_busy": 1}, "session_busy"),
        ({"context_policy": 1}, "context_policy"),
        ({"context_policy": 77}, "context_policy"),
    ],
)
async def test_how_a_turn_may_live_is_checked(fields: dict[str, Any], field: str) -> None:
    async with running_gateway() as endpoint:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(ask(**fields))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details(refusal.value)[0] == [field]


async def test_turns_of_other_tenants_do_not_exist() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        call = one.endpoint.inference.StreamGenerate(ask(max_tokens=500), metadata=one.endpoint.auth)
        turn = (await first(call, 3))[0].started.turn
        key = await mint_key(one.endpoint.stores, "globex")
        auth = (("authorization", f"Bearer {key}"),)
        for endpoint in (one.endpoint, two.endpoint):
            for refused in (
                endpoint.inference.GetTurn(pb.GetTurnRequest(turn=turn), metadata=auth),
                endpoint.inference.CancelTurn(pb.CancelTurnRequest(turn=turn), metadata=auth),
                rest(endpoint.inference.ResumeTurn(pb.ResumeTurnRequest(turn=turn), metadata=auth)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await refused
                assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
                assert refusal.value.details() == "no such turn"
        call.cancel()


async def test_a_journal_that_grows_beyond_its_bound_ends_the_turn() -> None:
    async with running_gateway(sim=SLOW, journal_bytes=1024) as endpoint:
        with pytest.raises(grpc.aio.AioRpcError) as end:
            await endpoint.stream(ask(max_tokens=1500))
        assert end.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "1024 bytes" in str(
            end.value.details()
        )


async def test_a_session_turn_that_changes_hands_is_in_the_session_once() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        await two.until_it_judges()
        session = await one.endpoint.sessions.Create(
            sessions_pb2.CreateSessionRequest(), metadata=one.endpoint.auth
        )
        request = ask("go on", max_tokens=200, session=session.id)
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        turn = (await first(call, 20))[0].started.turn
        await one.die()
        done = await until_state(two.endpoint, turn, pb.Turn.FINISHED)
        assert done.answer.session_version == 2 and done.answer.usage.takeovers == 1
        kept = await two.endpoint.sessions.Get(
            sessions_pb2.GetSessionRequest(id=session.id), metadata=two.endpoint.auth
        )
        assert [m.content[0].text for m in kept.messages] == ["go on", answer_of(one.endpoint, request, 200)]


async def test_the_store_reads_nothing_of_an_encrypted_turn(valkey_client: Store) -> None:  # noqa: F811
    secret = "canary-of-the-prompt"
    sealing = settings(master_key=base64.b64encode(bytes(range(32))).decode())
    stores = replace(memory_stores(), journals=RedisJournalStore(valkey_client, ciphers(sealing)))
    async with running_gateways(2, stores, sim=SLOW) as [one, two]:
        request = ask(secret, max_tokens=40, idempotency_key="k")
        events = await one.endpoint.stream(request)
        again = await two.endpoint.stream(request)
        assert text_of(again) == text_of(events)
        raw = b""
        async for key in valkey_client.scan_iter():
            if b":turn:" in key:
                raw += b"".join((await valkey_client.hgetall(key)).values())
            elif b":events:" in key:
                raw += b"".join(fields[b"b"] for _, fields in await valkey_client.xrange(key))
        assert len(raw) > 200 and secret.encode() not in raw
        assert not any(word.encode() in raw for word in text_of(events).split() if len(word) > 6)
