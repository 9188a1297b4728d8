"""The SDK against a scripted endpoint whose connections are cut under it."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.client import Client, Delta, Event, Finished, HeadraceError, Resume, Rewind, Started, Stream
from services.core.errors import (
    Draining,
    EngineLost,
    Full,
    InvalidRequest,
    NotFound,
    OutOfRange,
    StoreAway,
    Violation,
)
from tests.support.flaky import HOLD, LOST, Flaky, Item, Status, delta, finished, flaky, rewind, started
from tests.support.gateway import until

SOON = Resume(first_pause=0.01, longest_pause=0.05, draw=lambda: 0.5)


def client(*endpoints: Flaky, resume: Resume | None = SOON) -> Client:
    return Client([each.address for each in endpoints], "hr_x", resume=resume)


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def played(*calls: list[Item]) -> tuple[list[Event], Stream, list[object]]:
    async with flaky(*calls) as endpoint, client(endpoint) as caller:
        stream = caller.stream("Hello")
        events = [event async for event in stream]
        return events, stream, endpoint.asked


async def cut_after(stream: Stream, endpoint: Flaky, seq: int) -> AsyncIterator[Event]:
    async for event in stream:
        yield event
        if event.seq == seq and stream.resumes == 0:
            endpoint.proxy.cut()


async def test_a_connection_that_is_cut_is_made_again_and_the_stream_goes_on() -> None:
    first: list[Item] = [started(), delta(2, "a"), delta(3, "b"), HOLD]
    async with flaky(first, [delta(4, "c"), finished(5)]) as endpoint, client(endpoint) as caller:
        stream = caller.stream("Hello")
        events = [event async for event in cut_after(stream, endpoint, 3)]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert text(events) == "abc"
    assert endpoint.asked[1] == pb.ResumeTurnRequest(turn="t1", after_seq=3, epoch=1)
    assert (endpoint.proxy.accepted, stream.resumes, stream.turn) == (2, 1, "t1")


@pytest.mark.parametrize(
    "loss",
    [
        LOST,
        Status(grpc.StatusCode.CANCELLED),
        Status(grpc.StatusCode.UNKNOWN),
        Status(grpc.StatusCode.INTERNAL),
        Draining("leaves", retry_after=0.01),
        StoreAway("away", retry_after=0.01),
    ],
)
async def test_what_loses_the_way_but_not_the_turn_is_survived(loss: Item) -> None:
    events, stream, _ = await played([started(), delta(2, "a"), loss], [delta(3, "b"), finished(4)])
    assert (text(events), stream.resumes) == ("ab", 1)


async def test_a_stream_that_ends_without_an_end_is_read_on() -> None:
    events, stream, asked = await played([started(), delta(2, "a")], [delta(3, "b"), finished(4)])
    assert (text(events), stream.resumes, len(asked)) == ("ab", 1, 2)


async def test_a_call_that_broke_before_its_turn_began_is_asked_again_with_the_same_key() -> None:
    events, stream, asked = await played([LOST], [started(), delta(2, "a"), finished(3)])
    assert text(events) == "a"
    assert asked[0] == asked[1]
    assert isinstance(asked[0], pb.GenerateRequest) and len(asked[0].idempotency_key) == 32
    assert stream.resumes == 0


async def test_every_call_has_a_key_of_its_own_unless_the_caller_gives_one() -> None:
    whole: list[Item] = [started(), finished(2)]
    async with flaky(whole, whole, whole) as endpoint, client(endpoint) as caller:
        for wish in ({}, {}, {"idempotency_key": "mine"}):
            _ = [event async for event in caller.stream("Hello", **wish)]
    first, second, given = (request.idempotency_key for request in endpoint.asked)
    assert first != second
    assert given == "mine"


@pytest.mark.parametrize(
    "refusal", [InvalidRequest(Violation("n", "too many")), NotFound("no model"), EngineLost("died")]
)
async def test_a_refusal_is_not_tried_again(refusal: Item) -> None:
    with pytest.raises(HeadraceError) as refused:
        await played([refusal])
    assert refused.value.reached


async def test_a_resume_that_is_refused_with_a_delay_is_tried_again() -> None:
    full = Full("many readers", retry_after=0.01)
    events, stream, _ = await played([started(), delta(2, "a"), LOST], [full], [delta(3, "b"), finished(4)])
    assert (text(events), stream.resumes) == ("ab", 1)


async def test_a_turn_that_has_failed_is_not_read_again() -> None:
    error = pb.Error(outcome="draining", message="ended", code=14, retry_after_ms=500)
    failed = pb.StreamEvent(seq=3, epoch=1, error=error)
    with pytest.raises(HeadraceError, match="ended") as ended:
        await played([started(), delta(2, "a"), failed, LOST])
    assert (ended.value.outcome, ended.value.retry_after) == ("DRAINING", 0.5)


async def test_the_end_of_a_turn_stands_though_the_connection_broke_after_it() -> None:
    events, stream, _ = await played([started(), finished(2), LOST])
    assert isinstance(events[-1], Finished)
    assert stream.resumes == 0


async def test_a_turn_that_nobody_knows_any_more_is_asked_for_again_by_its_key() -> None:
    again: list[Item] = [started(), delta(2, "a"), delta(3, "b"), finished(4)]
    events, _, asked = await played([started(), delta(2, "a"), LOST], [NotFound("no turn")], again)
    assert text(events) == "ab"
    assert sum(isinstance(event, Started) for event in events) == 1
    assert asked[2] == asked[0]


async def test_a_turn_begun_anew_that_says_something_else_is_drawn_again() -> None:
    again: list[Item] = [started("t2"), delta(2, "x"), delta(3, "y"), finished(4)]
    events, stream, _ = await played([started(), delta(2, "a"), LOST], [NotFound("no turn")], again)
    assert [event.answers[0].text for event in events if isinstance(event, Rewind)] == [""]
    assert text(events) == "axy"
    assert stream.turn == "t2"


async def test_a_position_that_is_out_of_range_is_read_from_the_beginning() -> None:
    again: list[Item] = [started(), delta(2, "a"), delta(3, "b"), finished(4)]
    events, _, asked = await played([started(), delta(2, "a"), LOST], [OutOfRange("ahead")], again)
    assert text(events) == "ab"
    assert asked[2] == pb.ResumeTurnRequest(turn="t1")


async def test_a_rewind_to_what_the_caller_has_is_not_heard() -> None:
    first: list[Item] = [started(), delta(2, "a"), delta(3, "bc", 2), LOST]
    second: list[Item] = [
        rewind(2, "a"),
        delta(3, "b", epoch=2),
        delta(4, "cd", 2, epoch=2),
        finished(5, epoch=2),
    ]
    events, stream, _ = await played(first, second)
    assert text(events) == "abcd"
    assert [event.tokens for event in events if isinstance(event, Delta)] == [1, 2, 1]
    assert (stream.epoch, stream.seq) == (2, 5)


async def test_a_rewind_to_something_else_is_told_once() -> None:
    first: list[Item] = [started(), delta(2, "a"), delta(3, "bc"), LOST]
    second: list[Item] = [
        rewind(2, "a"),
        delta(3, "b", epoch=2),
        delta(4, "x", epoch=2),
        finished(5, epoch=2),
    ]
    events, _, _ = await played(first, second)
    assert [event.answers[0].text for event in events if isinstance(event, Rewind)] == ["ab"]
    assert isinstance(events[-2], Delta) and events[-2].text == "x"


async def test_a_turn_that_ends_short_of_what_was_told_is_told_as_it_stands() -> None:
    first: list[Item] = [started(), delta(2, "a"), delta(3, "bc"), LOST]
    events, _, _ = await played(first, [rewind(2, "a"), delta(3, "b", epoch=2), finished(4, epoch=2)])
    assert isinstance(events[-2], Rewind) and events[-2].answers[0].text == "ab"
    assert isinstance(events[-1], Finished)


async def test_several_endpoints_take_over_from_each_other() -> None:
    first: list[Item] = [started(), delta(2, "a"), HOLD]
    second: list[Item] = [delta(3, "b"), finished(4)]
    async with flaky(first) as one, flaky(second) as two, client(one, two) as caller:
        events = []
        async for event in cut_after(caller.stream("Hello"), one, 2):
            one.proxy.refuse()
            events.append(event)
    assert text(events) == "ab"
    assert two.asked == [pb.ResumeTurnRequest(turn="t1", after_seq=2, epoch=1)]


async def test_an_endpoint_that_leaves_hands_its_callers_to_the_next() -> None:
    leaving: list[Item] = [started(), delta(2, "a"), Draining("leaves", retry_after=0.01)]
    second: list[Item] = [delta(3, "b"), finished(4)]
    whole: list[Item] = [started("t2"), finished(2)]
    async with flaky(leaving) as one, flaky(second, whole) as two, client(one, two) as caller:
        events = [event async for event in caller.stream("Hello")]
        _ = [event async for event in caller.stream("Hello")]
    assert text(events) == "ab"
    assert (len(one.asked), len(two.asked)) == (1, 2)


async def test_an_endpoint_that_is_not_there_is_passed_over() -> None:
    there: list[Item] = [started(), finished(2)]
    async with flaky(there) as two, Client(f"127.0.0.1:9,{two.address}", "hr_x", resume=SOON) as caller:
        events = [event async for event in caller.stream("Hello")]
    assert isinstance(events[-1], Finished)


async def test_a_dead_endpoint_is_given_up_and_the_position_stays() -> None:
    how = Resume(seconds=0.3, first_pause=0.01, longest_pause=0.05)
    async with flaky([started(), delta(2, "a"), HOLD]) as endpoint, client(endpoint, resume=how) as caller:
        stream = caller.stream("Hello")
        with pytest.raises(HeadraceError) as lost:
            async for _ in cut_after(stream, endpoint, 2):
                endpoint.proxy.refuse()
    assert (lost.value.code, lost.value.reached) == (grpc.StatusCode.UNAVAILABLE, False)
    assert (stream.turn, stream.seq, stream.epoch) == ("t1", 2, 1)
    assert endpoint.cancelled == []


@pytest.mark.parametrize("own", [True, False])
async def test_resume_can_be_turned_off(own: bool) -> None:
    async with flaky([started(), LOST]) as endpoint, client(endpoint, resume=SOON if own else None) as caller:
        with pytest.raises(HeadraceError):
            _ = [event async for event in caller.stream("Hello", resume=not own)]
    assert len(endpoint.asked) == 1


async def test_the_timeout_is_of_the_turn_and_not_of_an_attempt() -> None:
    calls: list[list[Item]] = [[started(), LOST], *([LOST] for _ in range(100))]
    async with flaky(*calls) as endpoint, client(endpoint) as caller:
        async with asyncio.timeout(5):
            with pytest.raises(HeadraceError):
                _ = [event async for event in caller.stream("Hello", timeout=0.4)]
    assert endpoint.asked[0].timeout_seconds == 1


async def test_leaving_early_cancels_the_turn_before_the_client_closes() -> None:
    async with flaky([started(), delta(2, "a"), HOLD]) as endpoint:
        async with client(endpoint) as caller, caller.stream("Hello") as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    break
        assert endpoint.cancelled == ["t1"]


async def test_a_task_that_is_cancelled_cancels_its_turn() -> None:
    async with flaky([started(), delta(2, "a"), HOLD]) as endpoint, client(endpoint) as caller:
        stream = caller.stream("Hello")

        async def read() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(read())
        await until(lambda: stream.seq == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: endpoint.cancelled == ["t1"])


async def test_cancel_ends_the_iteration_and_the_turn() -> None:
    async with flaky([started(), delta(2, "a"), HOLD]) as endpoint, client(endpoint) as caller:
        stream = caller.stream("Hello")
        with pytest.raises(HeadraceError) as ended:
            async for event in stream:
                if event.seq == 2:
                    stream.cancel()
        assert ended.value.code is grpc.StatusCode.CANCELLED
        await until(lambda: endpoint.cancelled == ["t1"])


async def test_a_turn_that_was_read_to_its_end_is_not_cancelled() -> None:
    async with flaky([started(), finished(2)]) as endpoint:
        async with client(endpoint) as caller, caller.stream("Hello") as stream:
            _ = [event async for event in stream]
        assert endpoint.cancelled == []


async def test_generate_asks_again_with_the_same_key() -> None:
    answer = pb.GenerateResponse(
        turn="t1",
        message=pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.Part(text="Rome")]),
        finish_reason=pb.FINISH_REASON_STOP,
        durability=pb.DURABILITY_CONFIRMED,
    )
    calls: list[list[Item]] = [[LOST], [Draining("leaves", retry_after=0.01)], [answer]]
    async with flaky(*calls) as endpoint, client(endpoint) as caller:
        given = await caller.generate("Hello")
    assert (given.message.text, given.durability) == ("Rome", "confirmed")
    assert endpoint.asked[0] == endpoint.asked[1] == endpoint.asked[2]


async def test_a_turn_is_started_looked_at_and_read_without_being_held() -> None:
    message = pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.Part(text="a")])
    running = pb.Turn(
        id="t1", state=pb.Turn.RUNNING, seq=2, epoch=1, answer=pb.GenerateResponse(message=message)
    )
    calls: list[list[Item]] = [[running], [running], [started(), delta(2, "a"), HOLD]]
    async with flaky(*calls) as endpoint, client(endpoint) as caller:
        begun = await caller.start("Hello", timeout=60, session_busy="queue", linger=5)
        seen = await caller.turn(begun.id)
        async with caller.resume(begun.id) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    break
        assert endpoint.cancelled == []
        ended = await caller.cancel(begun.id)
    asked = endpoint.asked[0]
    assert (asked.timeout_seconds, asked.linger_seconds, asked.session_busy) == (60, 5, pb.SESSION_BUSY_QUEUE)
    assert (seen.state, seen.messages[0].text, seen.answer) == ("running", "a", None)
    assert (ended.id, ended.state) == ("t1", "failed")


async def test_many_streams_survive_many_cuts() -> None:
    """Each connection serves what a caller lacks, and is cut when callers have read some more."""
    whole: list[Item] = [started(), *(delta(seq, f"{seq} ") for seq in range(2, 200)), finished(200)]
    begun = set[int]()

    async def read(caller: Client, endpoint: Flaky, number: int) -> Stream:
        stream, events = caller.stream("Hello"), []
        async for event in stream:
            events.append(event)
            begun.add(number)
            # A turn that runs is read again with an empty budget too.
            if event.seq % 37 == number and len(begun) == 8:
                endpoint.proxy.cut()
        assert [event.seq for event in events] == list(range(1, 201))
        return stream

    patient = Resume(first_pause=0.02, longest_pause=0.2)
    async with flaky(journal=whole) as endpoint, client(endpoint, resume=patient) as caller:
        streams = await asyncio.gather(*(read(caller, endpoint, number) for number in range(8)))
    assert sum(stream.resumes for stream in streams) > 8


async def test_while_the_store_is_away_a_call_goes_on_without_the_key_that_the_client_drew() -> None:
    away, answered = [StoreAway("away")], [started(), delta(2, "a"), finished(3)]
    events, _, asked = await played(away, answered)
    assert text(events) == "a"
    keys = [request.idempotency_key for request in asked if isinstance(request, pb.GenerateRequest)]
    assert [len(key) for key in keys] == [32, 0]


@pytest.mark.parametrize("wish", [{"idempotency_key": "mine"}, {"session": "s"}, {"durable": True}])
async def test_a_key_that_is_needed_is_kept_while_the_store_is_away(wish: dict[str, str]) -> None:
    soon = Resume(first_pause=0, longest_pause=0, sleep=lambda _: asyncio.sleep(0))
    async with (
        flaky([StoreAway("away")], [started(), finished(2)]) as endpoint,
        client(endpoint, resume=soon) as caller,
    ):
        assert [event async for event in caller.stream("Hello", **wish)]  # type: ignore[arg-type]
        assert endpoint.asked[0] == endpoint.asked[1] and endpoint.asked[0].idempotency_key


async def test_a_call_without_a_key_that_was_lost_on_its_way_is_not_sent_again() -> None:
    async with (
        flaky([StoreAway("away")], [LOST], [started(), finished(2)]) as endpoint,
        client(endpoint) as caller,
    ):
        with pytest.raises(HeadraceError):
            [event async for event in caller.stream("Hello")]
        assert len(endpoint.asked) == 2
