"""One valid key, and everything that can be done wrong with turns: refused by name, and nobody else notices."""

import asyncio
import gc
from typing import Any

import grpc
from structlog.testing import capture_logs

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import sessions_pb2
from services.gateway.turn import Turn
from tests.hostile.test_bad_input import details
from tests.integration.test_generate import text_of
from tests.support.gateway import Endpoint, ask, memory_stores, mint_key, running_gateway, until
from tests.support.gateways import first, rest, running_gateways

SLOW = SimSettings(timing=SimTiming(step_s=0.004, scale=1), context_length=2048, vocab_size=49152)
ABSENT = "turn_" + "0" * 32
NO_IDS = [
    "",
    "\0",
    ABSENT + "\n",
    ABSENT + "\0",
    ABSENT.upper(),
    "turn_" + "{" * 32,
    "*",
    "turn_" + "\u0660" * 32,
]
NO_IDS += [
    "turn_" + "g" * 32,
    "turn_" + "0" * 5000,
    "x" * 1_000_000,
    "headrace:{j0}:turn:" + ABSENT,
    ABSENT + " ",
]


async def outcome(call: Any) -> tuple[grpc.StatusCode, Any]:
    try:
        return grpc.StatusCode.OK, await (call if hasattr(call, "__await__") else rest(call))
    except grpc.aio.AioRpcError as error:
        return error.code(), error


async def together(*calls: Any) -> list[tuple[grpc.StatusCode, Any]]:
    return await asyncio.gather(*map(outcome, calls))


def about(endpoint: Endpoint, turn: str, **position: int) -> list[Any]:
    """The three calls that name a turn."""
    with_key = {"metadata": endpoint.auth}
    return [
        endpoint.inference.GetTurn(pb.GetTurnRequest(turn=turn), **with_key),
        endpoint.inference.CancelTurn(pb.CancelTurnRequest(turn=turn), **with_key),
        endpoint.inference.ResumeTurn(pb.ResumeTurnRequest(turn=turn, **position), **with_key),
    ]


def start(endpoint: Endpoint, request: pb.GenerateRequest) -> Any:
    return endpoint.inference.StartTurn(request, metadata=endpoint.auth)


def resume(endpoint: Endpoint, turn: str, **position: int) -> Any:
    request = pb.ResumeTurnRequest(turn=turn, **position)
    return endpoint.inference.ResumeTurn(request, metadata=endpoint.auth)


async def finished(endpoint: Endpoint, **fields: Any) -> tuple[str, str]:
    """A turn that has ended, and its text."""
    events = await endpoint.stream(ask(**fields))
    return events[0].started.turn, text_of(events)


async def test_what_is_no_id_is_refused_by_name() -> None:
    async with running_gateway() as endpoint:
        for id in NO_IDS:
            for code, error in await together(*about(endpoint, id)):
                assert code is grpc.StatusCode.INVALID_ARGUMENT and details(error)[0] == ["turn"], id[:40]
                assert id[:20] not in error.details() or len(id) < 2
        assert endpoint.deps.admission.held == 0


async def test_another_tenants_turns_and_sessions_are_as_ones_that_never_were() -> None:
    async with running_gateways(2, sim=SLOW) as gateways:
        bob = gateways[0].endpoint
        mine = await start(bob, ask("canary", max_tokens=1500))
        made = sessions_pb2.CreateSessionRequest(system="canary")
        session = (await bob.sessions.Create(made, metadata=bob.auth)).id
        key = await mint_key(bob.stores, tenant="mallory")
        for gateway in gateways:
            endpoint = gateway.endpoint
            endpoint.key = key
            replies = await together(*about(endpoint, mine.id, after_seq=3), *of_session(endpoint, session))
            never = await together(*about(endpoint, ABSENT), *of_session(endpoint, "session_" + "0" * 32))
            for (code, error), (same, other) in zip(replies, never, strict=True):
                assert code is same is grpc.StatusCode.NOT_FOUND
                assert error.details() == other.details() and "canary" not in str(error)
        assert bob.deps.turns.runs(mine.id)


def of_session(endpoint: Endpoint, id: str) -> list[Any]:
    with_key, asked = {"metadata": endpoint.auth}, ask(session=id, max_tokens=3)
    return [
        endpoint.sessions.Get(sessions_pb2.GetSessionRequest(id=id), **with_key),
        endpoint.sessions.Fork(sessions_pb2.ForkSessionRequest(id=id), **with_key),
        endpoint.sessions.Export(sessions_pb2.ExportSessionRequest(id=id), **with_key),
        endpoint.sessions.Delete(sessions_pb2.DeleteSessionRequest(id=id), **with_key),
        endpoint.inference.Generate(asked, **with_key),
        endpoint.inference.StartTurn(asked, **with_key),
    ]


async def test_a_position_that_the_turn_never_had_is_refused_or_set_right() -> None:
    async with running_gateways(2) as [one, two]:
        turn, text = await finished(one.endpoint, max_tokens=30)
        for endpoint in (one.endpoint, two.endpoint):
            for seq in (99, 2**31, 2**63 - 1):
                for epoch in (0, 2**31 - 1):
                    code, error = await outcome(resume(endpoint, turn, after_seq=seq, epoch=epoch))
                    assert code is grpc.StatusCode.OUT_OF_RANGE and "after_seq" in error.details()
            ahead = await rest(resume(endpoint, turn, after_seq=5, epoch=2**31 - 1))
            stood = ahead[0].rewind.answers[0].content[0].text
            assert stood + text_of(ahead) == text
            anew = await rest(resume(endpoint, turn, epoch=2**31 - 1))
            assert text_of(anew) == text and {event.epoch for event in anew} == {0}


async def test_copies_of_a_key_with_other_requests_start_one_turn_and_free_their_slots() -> None:
    async with running_gateways(2) as [one, two]:
        calls = [
            (one, two)[i % 2].endpoint.inference.Generate(
                ask(f"copy {i}", max_tokens=5, idempotency_key="{}*%s ~" * 36), metadata=one.endpoint.auth
            )
            for i in range(100)
        ]
        codes = [code for code, _ in await together(*calls)]
        assert codes.count(grpc.StatusCode.OK) == 1
        assert codes.count(grpc.StatusCode.FAILED_PRECONDITION) == 99
        await until(lambda: not (one.endpoint.deps.admission.held or two.endpoint.deps.admission.held))


async def test_a_storm_of_cancels_ends_a_turn_once_and_a_neighbour_goes_on() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        neighbour = asyncio.create_task(one.endpoint.stream(ask("beside", max_tokens=60)))
        turn = await start(one.endpoint, ask("mine", max_tokens=1900, min_tokens=1900))
        asked = pb.CancelTurnRequest(turn=turn.id)
        calls = [
            (one, two)[i % 2].endpoint.inference.CancelTurn(asked, metadata=one.endpoint.auth)
            for i in range(200)
        ]
        for code, ended in await together(*calls):
            assert code is grpc.StatusCode.OK and ended.state == pb.Turn.FAILED
        assert (await neighbour)[-1].HasField("finished")
        await until(lambda: not one.endpoint.deps.admission.held)


async def test_many_readers_that_never_read_hold_nothing_once_they_are_gone() -> None:
    async with running_gateways(2, sim=SLOW) as [one, two]:
        turn = await start(one.endpoint, ask("mine", max_tokens=300, min_tokens=300))
        calls = [resume((one, two)[i % 2].endpoint, turn.id) for i in range(100)]
        events = await one.endpoint.stream(ask("beside", max_tokens=60))
        assert events[-1].HasField("finished")
        for call in calls:
            call.cancel()
        await rest(resume(two.endpoint, turn.id))
        for gateway in (one, two):
            await until(lambda deps=gateway.endpoint.deps: not (deps.admission.held or len(deps.turns)))  # type: ignore[misc]


async def test_many_resumes_of_an_ended_turn_all_read_the_same() -> None:
    async with running_gateways(2) as [one, two]:
        turn, text = await finished(one.endpoint, max_tokens=300)
        calls = [resume((one, two)[i % 2].endpoint, turn) for i in range(60)]
        replies = {(code, text_of(events)) for code, events in await together(*calls)}
        assert replies == {(grpc.StatusCode.OK, text)}


async def test_a_turn_that_has_ended_is_held_by_no_timer_of_a_reader_that_left() -> None:
    async with running_gateway() as endpoint:
        request = ask(max_tokens=30, linger_seconds=3600)
        call = endpoint.inference.StreamGenerate(request, metadata=endpoint.auth)
        turn = (await first(call))[0].started.turn
        call.cancel()
        await until(lambda: not len(endpoint.deps.turns))
        await until(lambda: not alive(turn))


def alive(turn: str) -> bool:
    gc.collect()
    # By its type alone: isinstance would wake deprecated objects of other libraries.
    return any(type(thing) is Turn and thing.id == turn for thing in gc.get_objects())


async def test_what_nobody_knows_in_a_request_is_not_kept() -> None:
    stores = memory_stores()
    async with running_gateway(stores=stores) as endpoint:
        unknown = b"\xfa\x3f\x80\x80\x40" + b"z" * (1 << 20)  # field 1023, a megabyte
        raw = endpoint.channel.unary_unary(
            "/headrace.v1.Inference/StartTurn", response_deserializer=pb.Turn.FromString
        )
        turn = await raw(ask(max_tokens=3).SerializeToString() + unknown, metadata=endpoint.auth)
        stored = await stores.journals.find(turn.id)
        assert stored is not None and len(stored.record.request) < 1000


async def test_a_start_with_the_key_of_an_ended_turn_tells_that_it_has_ended() -> None:
    request = ask(max_tokens=5, idempotency_key="k")
    async with running_gateways(2) as [one, two]:
        begun = await start(one.endpoint, request)
        text = text_of(await rest(resume(one.endpoint, begun.id)))
        again = await start(two.endpoint, request)
        assert (again.id, again.state) == (begun.id, pb.Turn.FINISHED)
        assert again.answer.message.content[0].text == text


async def test_hostile_calls_leave_no_traceback_in_the_log() -> None:
    with capture_logs() as logs:
        async with running_gateway(sim=SLOW) as endpoint:
            turn = await start(endpoint, ask("mine", max_tokens=500))
            calls = [call for id in (*NO_IDS[:8], turn.id) for call in about(endpoint, id, epoch=7)]
            await together(*calls, *(start(endpoint, ask(idempotency_key="k" * n)) for n in (1, 256)))
        assert not [entry for entry in logs if "exc_info" in entry]
