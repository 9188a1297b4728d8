"""What every store of turns does: keeps events in order, once, from one writer; claims; changes hands."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.core.errors import EngineLost, InvalidRequest, Precondition, Violation
from services.core.events import (
    Answered,
    CallDelta,
    Delta,
    Durability,
    Ending,
    Event,
    Failed,
    Finished,
    FinishReason,
    Logprob,
    Migrated,
    ReasoningDelta,
    Restarted,
    Started,
    TakenOver,
    Usage,
)
from services.journal.port import Batch, Claim, Record, Verdict, placed
from tests.contract.stores import Stores

TURN = "turn_" + "a" * 32
STOP = (Ending(FinishReason.STOP),)


def record(turn: str = TURN, gateway: str = "one", claim: Claim | None = None, **fields: object) -> Record:
    return Record(turn, "acme", gateway, 0, b"request", 60.0, 600.0, claim, **fields)  # type: ignore[arg-type]


def batch(first: int, events: Sequence[Event], *, turn: str = TURN, epoch: int = 0) -> Batch:
    ended = bool(events) and isinstance(events[-1], Finished | Failed)
    return Batch(turn, "acme", epoch, first, events, ended, 600.0)


def deltas(text: str) -> list[Event]:
    return [Delta(character, [ord(character)]) for character in text]


async def verdict(stores: Stores, *batches: Batch) -> Verdict:
    return (await stores.journals.append(batches))[-1].verdict


async def text(stores: Stores, after: int = 0, turn: str = TURN) -> str:
    pages = await stores.journals.read(turn, "acme", after)
    seqs = [entry.seq for page in pages for entry in page.entries]
    assert seqs == list(range(after + 1, after + 1 + len(seqs)))
    events = [entry.event for page in pages for entry in page.entries]
    return "".join(event.text for event in events if isinstance(event, Delta))


EVERY_EVENT: list[Event] = [
    Started(TURN, "model", 7, resumable=True, messages_dropped=2),
    Delta("é", [1, 2]),
    Delta("x", [3], 1, (Logprob(b"\xc3", -0.5, ((b"a", -1.0), (b"b", -2.0))),)),
    ReasoningDelta("hm", [4], 1),
    CallDelta(0, "{}", [5], 0, "call_1", "weather"),
    Restarted(1, held=True),
    Migrated(),
    TakenOver(3),
    Answered((Ending(FinishReason.STOP_SEQUENCE, "END"), Ending(FinishReason.LENGTH))),
    Usage(1, 2, 3, 4, 5, 6),
    Finished(STOP, 4, Durability.CONFIRMED),
]


async def test_what_is_read_is_what_was_appended(stores: Stores) -> None:
    await stores.journals.create(record())
    assert await verdict(stores, batch(1, EVERY_EVENT)) is Verdict.KEPT
    [page] = await stores.journals.read(TURN, "acme", 0)
    for entry, event in zip(page.entries, EVERY_EVENT, strict=True):
        assert type(entry.event) is type(event)
        assert [getattr(entry.event, f) for f in event.__dataclass_fields__] == [
            list(v) if isinstance(v := getattr(event, f), tuple) and f == "logprobs" and v else v
            for f in event.__dataclass_fields__
        ]


@pytest.mark.parametrize(
    "error", [EngineLost("gone", retry_after=2.0), InvalidRequest(Violation("tools", "too many"))]
)
async def test_an_error_keeps_its_kind_and_its_details(stores: Stores, error: EngineLost) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, [Failed(error)])])
    [page] = await stores.journals.read(TURN, "acme", 0)
    read = page.entries[0].event
    assert isinstance(read, Failed) and type(read.error) is type(error)
    assert (read.error.message, read.error.retry_after) == (error.message, error.retry_after)
    assert getattr(read.error, "violations", ()) == getattr(error, "violations", ())


async def test_a_repeated_append_happens_once(stores: Stores) -> None:
    await stores.journals.create(record())
    for _ in range(3):
        assert await verdict(stores, batch(1, deltas("abc"))) is Verdict.KEPT
    assert await text(stores) == "abc"


async def test_an_append_that_leaves_a_gap_is_told_where_the_store_is(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, deltas("abc"))])
    [gap, overlap] = await stores.journals.append([batch(5, deltas("e")), batch(2, deltas("bcd"))])
    assert (gap.verdict, gap.seq) == (overlap.verdict, overlap.seq) == (Verdict.REALIGN, 3)
    assert await text(stores) == "abc"


async def test_reading_goes_on_in_the_middle_of_a_batch(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, deltas("abc")), batch(4, deltas("def"))])
    assert [await text(stores, after) for after in range(7)] == [
        "abcdef",
        "bcdef",
        "cdef",
        "def",
        "ef",
        "f",
        "",
    ]


async def test_a_turn_of_very_many_batches_is_read_whole(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1 + 2 * i, [Delta("a", [i]), Delta("b", [i])]) for i in range(1024)])
    for after in (0, 1, 1023, 1024, 2047, 2048):
        pages = await stores.journals.read(TURN, "acme", after)
        assert [e.seq for page in pages for e in page.entries] == list(range(after + 1, 2049))


async def test_turns_in_one_round_trip_are_judged_apart(stores: Stores) -> None:
    turns = [f"turn_{i:032x}" for i in range(40)]
    for turn in turns:
        await stores.journals.create(record(turn))
    replies = await stores.journals.append(
        [batch(1 + i % 2, deltas(f"text {i}"), turn=turn) for i, turn in enumerate(turns)]
    )
    assert [reply.verdict for reply in replies] == [Verdict.KEPT, Verdict.REALIGN] * 20
    assert [await text(stores, turn=turn) for turn in turns[::2]] == [f"text {i}" for i in range(0, 40, 2)]


async def test_a_turn_that_was_not_created_takes_nothing(stores: Stores) -> None:
    assert await verdict(stores, batch(1, deltas("abc"))) is Verdict.GONE
    assert await stores.journals.find(TURN) is None and await text(stores) == ""


async def test_who_took_a_turn_writes_it_and_the_one_before_is_fenced(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, deltas("abc"))])
    taken = await stores.journals.take(TURN, "one", "two")
    assert taken is not None and (taken.record.gateway, taken.record.epoch, taken.seq) == ("two", 1, 3)
    assert taken.record.request == b"request" and 0 < taken.record.seconds <= 60
    assert await verdict(stores, batch(4, deltas("d"))) is Verdict.FENCED
    assert await verdict(stores, batch(4, [TakenOver(1)], epoch=1)) is Verdict.KEPT
    assert [page.epoch for page in await stores.journals.read(TURN, "acme", 0)] == [0, 1]


async def test_a_turn_is_taken_once_and_the_taker_may_ask_again(stores: Stores) -> None:
    await stores.journals.create(record())
    takers = [f"taker {i}" for i in range(8)]
    taken = await asyncio.gather(*(stores.journals.take(TURN, "one", name) for name in takers))
    [winner] = [name for name, stored in zip(takers, taken, strict=True) if stored is not None]
    again = await stores.journals.take(TURN, "one", winner)
    assert again is not None and again.record.epoch == 1


async def test_a_takeover_has_an_epoch_of_its_own_and_not_below_what_is_asked(stores: Stores) -> None:
    await stores.journals.create(record())
    taken = [
        await stores.journals.take(TURN, "one", "two", 70),
        await stores.journals.take(TURN, "two", "three", 9),
    ]
    assert [stored and stored.record.epoch for stored in taken] == [70, 71]


async def test_a_gateway_may_take_its_own_turn_again_and_each_time_with_a_new_epoch(stores: Stores) -> None:
    await stores.journals.create(record())
    taken = [await stores.journals.take(TURN, "one", "one") for _ in range(3)]
    assert [stored and stored.record.epoch for stored in taken] == [1, 2, 3]
    assert await verdict(stores, batch(1, deltas("a"), epoch=2)) is Verdict.FENCED


async def test_whoever_creates_or_takes_a_turn_is_looked_for(stores: Stores) -> None:
    await stores.journals.create(record())
    assert list(await stores.journals.lapsed()) == ["one"]
    await stores.journals.take(TURN, "one", "two")
    assert sorted(await stores.journals.lapsed()) == ["one", "two"]
    assert not await stores.journals.orphans("one") and await stores.journals.orphans("two") == [TURN]


async def test_a_turn_that_ended_is_not_taken_and_nothing_follows_its_end(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, [*deltas("ab"), Usage(), Finished(STOP)])])
    assert await stores.journals.take(TURN, "one", "two") is None
    stored = await stores.journals.find(TURN)
    assert stored is not None and stored.ended and not stored.void and stored.seq == 4


async def test_a_cancel_is_told_with_the_next_append_even_of_nothing(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, deltas("abc"))])
    await stores.journals.cancel(TURN)
    await stores.journals.cancel(TURN)
    assert await verdict(stores, batch(4, [])) is Verdict.CANCELLED
    assert await verdict(stores, batch(4, deltas("d"))) is Verdict.CANCELLED
    assert await text(stores) == "abcd"


async def test_nothing_happens_to_an_ended_or_absent_turn_that_is_cancelled(stores: Stores) -> None:
    await stores.journals.cancel(TURN)
    assert await stores.journals.find(TURN) is None
    await stores.journals.create(record())
    await stores.journals.append([batch(1, [Finished(STOP)])])
    await stores.journals.cancel(TURN)
    stored = await stores.journals.find(TURN)
    assert stored is not None and not stored.cancelled


async def test_a_reader_elsewhere_is_heard_of(stores: Stores) -> None:
    await stores.journals.create(record())
    [before] = await stores.journals.append([batch(1, [])])
    await stores.journals.watch(TURN)
    [after] = await stores.journals.append([batch(1, [])])
    assert before.watched == float("inf") and 0 <= after.watched < 5


CLAIM = Claim("order-17", "digest", 3600.0)


async def test_a_key_stands_for_the_first_turn_that_claims_it(stores: Stores) -> None:
    turns = [placed(f"turn_{i:032x}", "acme", CLAIM) for i in range(16, 160, 16)]
    got = await asyncio.gather(*(stores.journals.create(record(turn, claim=CLAIM)) for turn in turns))
    [holder] = set(got)
    assert holder in turns and await stores.journals.claimed("acme", CLAIM) == holder
    for turn in turns:
        assert (await stores.journals.find(turn) is None) == (turn != holder)


async def test_a_key_of_another_request_is_refused_and_of_another_tenant_is_another(stores: Stores) -> None:
    turn = placed(TURN, "acme", CLAIM)
    await stores.journals.create(record(turn, claim=CLAIM))
    other = replace(CLAIM, digest="another")
    with pytest.raises(Precondition, match="idempotency_key"):
        await stores.journals.claimed("acme", other)
    with pytest.raises(Precondition, match="idempotency_key"):
        await stores.journals.create(record(placed("turn_" + "b" * 32, "acme", CLAIM), claim=other))
    assert await stores.journals.claimed("globex", CLAIM) == ""


async def test_a_create_whose_reply_was_lost_can_be_repeated(stores: Stores) -> None:
    turn = placed(TURN, "acme", CLAIM)
    assert await stores.journals.create(record(turn, claim=CLAIM)) == turn
    await stores.journals.append([batch(1, deltas("abc"), turn=turn)])
    assert await stores.journals.create(record(turn, claim=CLAIM)) == turn
    assert await text(stores, turn=turn) == "abc"


async def test_a_turn_that_never_began_gives_its_key_away(stores: Stores) -> None:
    void, turn = placed(TURN, "acme", CLAIM), placed("turn_" + "b" * 32, "acme", CLAIM)
    await stores.journals.create(record(void, claim=CLAIM))
    await stores.journals.append([batch(1, [Failed(EngineLost("no"))], turn=void)])
    stored = await stores.journals.find(void)
    assert stored is not None and stored.void
    claim = replace(CLAIM, instead_of=void)
    assert await stores.journals.create(record(turn, claim=claim)) == turn
    assert await stores.journals.claimed("acme", CLAIM) == turn


async def test_a_key_is_forgotten_after_its_time(stores: Stores) -> None:
    turn = placed(TURN, "acme", CLAIM)
    await stores.journals.create(record(turn, claim=CLAIM))
    await stores.pass_time(3601)
    assert await stores.journals.claimed("acme", CLAIM) == ""


async def test_a_turn_is_kept_for_its_retention_after_the_end(stores: Stores) -> None:
    await stores.journals.create(record())
    await stores.journals.append([batch(1, [*deltas("ab"), Finished(STOP)])])
    await stores.pass_time(599)
    assert await text(stores) == "ab"
    await stores.pass_time(2)
    assert await stores.journals.find(TURN) is None and await text(stores) == ""


async def test_a_gateway_without_a_beat_has_lapsed_and_its_turns_are_orphans(stores: Stores) -> None:
    for gateway, turn in (("one", TURN), ("two", "turn_" + "b" * 32)):
        await stores.journals.beat(gateway, 3)
        await stores.journals.create(record(turn, gateway))
    assert await stores.journals.lapsed() == []
    await stores.journals.beat("two", 0)
    assert await stores.journals.lapsed() == ["two"]
    assert await stores.journals.orphans("two") == ["turn_" + "b" * 32]
    await stores.pass_time(3.1)
    assert sorted(await stores.journals.lapsed()) == ["one", "two"]


async def test_a_gateway_without_turns_is_forgotten_once_it_lapsed(stores: Stores) -> None:
    await stores.journals.create(record(gateway="two"))
    await stores.journals.beat("two", 3)
    await stores.journals.append([batch(1, [Finished(STOP)])])
    await stores.pass_time(4)
    assert await stores.journals.lapsed() == ["two"] and await stores.journals.orphans("two") == []
    assert await stores.journals.lapsed() == []


async def test_no_replica_of_the_store_confirms_nothing(stores: Stores) -> None:
    await stores.journals.create(record())
    assert await stores.journals.confirm(TURN, 0) is False
