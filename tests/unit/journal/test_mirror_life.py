"""A turn of another gateway, as its readers here have it: one copy, kept for as long as somebody reads."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import Cancelled, NotFound, StoreAway
from services.core.events import Delta, Event, Failed, TakenOver
from services.core.tasks import Tasks
from services.journal.memory import Left
from services.journal.memory_store import MemoryJournalStore
from services.journal.mirror import PATIENCE, WATCH, Mirrors, standing
from services.journal.port import Batch, Record
from tests.sim.loop import LoopClock, VirtualLoop

TURN = "turn_" + "a" * 32


class Store(MemoryJournalStore):
    """Does not answer while it is `away`."""

    away = False
    reads = 0

    async def read(self, turn: str, tenant: str, after: int) -> Any:
        self.reads += 1
        if self.away:
            raise StoreAway("away")
        return await super().read(turn, tenant, after)


class Case:
    def __init__(self, loop: VirtualLoop) -> None:
        self.clock = LoopClock(loop)
        self.store = Store(self.clock)
        self.tasks = Tasks(lambda name, error: self.crashes.append(repr(error)))
        self.mirrors = Mirrors(self.store, self.clock, self.tasks.start)
        self.crashes: list[str] = []
        self.seq = self.epoch = 0

    async def begin(self) -> None:
        await self.store.create(Record(TURN, "acme", "one", 0, b"", 1000.0, 600.0))

    async def write(self, *events: Event) -> None:
        ended = isinstance(events[-1], Failed)
        await self.store.append([Batch(TURN, "acme", self.epoch, self.seq + 1, events, ended, 600.0)])
        self.seq += len(events)

    async def say(self, text: str) -> None:
        await self.write(*(Delta(character, [1]) for character in text))


def texts(events: Sequence[Any]) -> str:
    return "".join(getattr(event, "text", "") for event in events)


def run(work: Callable[[Case], Any]) -> None:
    loop = VirtualLoop()

    async def doing() -> None:
        case = Case(loop)
        await case.begin()
        await work(case)
        await asyncio.sleep(0.001)
        assert not case.mirrors._all and not len(case.tasks) and not case.crashes

    loop.run_until_complete(doing())
    loop.close()


def test_readers_share_one_copy_that_grows_with_the_turn() -> None:
    async def work(case: Case) -> None:
        await case.say("ab")
        async with case.mirrors.follow(TURN, "acme") as one, case.mirrors.follow(TURN, "acme") as two:
            assert one is two and texts(one.events) == "ab"
            await case.say("cd")
            assert [entry.seq for entry in await one.read(2)] == [3, 4]
            await case.write(Failed(Cancelled("over")))
            assert len(await two.read(4)) == 1 and not await two.read(5)

    run(work)


def test_nobody_else_is_told_of_it() -> None:
    async def work(case: Case) -> None:
        await case.say("ab")
        async with case.mirrors.follow(TURN, "acme"):
            for turn, tenant in ((TURN, "globex"), ("turn_" + "b" * 32, "acme")):
                with pytest.raises(NotFound):
                    async with case.mirrors.follow(turn, tenant):
                        raise AssertionError("it was opened")

    run(work)


def test_the_store_may_be_away_for_a_while_and_not_for_ever() -> None:
    async def work(case: Case) -> None:
        await case.say("ab")
        async with case.mirrors.follow(TURN, "acme") as journal:
            case.store.away = True
            await asyncio.sleep(PATIENCE / 2)
            case.store.away = False
            await case.say("cd")
            assert texts([entry.event for entry in await journal.read(2)]) == "cd"
            case.store.away = True
            with pytest.raises(Left) as left:
                await journal.read(4)
            assert isinstance(left.value.error, StoreAway)

    run(work)


def test_a_turn_that_goes_away_is_missed() -> None:
    async def work(case: Case) -> None:
        await case.say("ab")
        async with case.mirrors.follow(TURN, "acme") as journal:
            case.store._turns.clear()
            with pytest.raises(Left) as left:
                await journal.read(2)
            assert isinstance(left.value.error, NotFound) and case.clock.monotonic() < 2 * WATCH

    run(work)


def test_a_journal_that_lost_its_end_is_read_anew() -> None:
    """A failover of the store took back what was read, and another gateway went on from before it."""

    async def work(case: Case) -> None:
        await case.say("abcd")
        async with case.mirrors.follow(TURN, "acme") as journal:
            kept = case.store._turns[TURN]
            await case.say("x")
            del kept.pages[1:]
            kept.seq = case.seq = 4
            await case.say("e")
            assert texts([entry.event for entry in await journal.read(4)]) == "e"
            kept.pages.clear()
            kept.seq = case.seq = 0
            await case.store.take(TURN, "one", "two", 7)
            case.epoch = 7
            await case.write(Delta("a", [1]), TakenOver(7), *(Delta(c, [1]) for c in "bcdefg"))
            with pytest.raises(Left) as left:
                await journal.read(5)
            assert left.value.turn == TURN and left.value.error is None
        async with case.mirrors.follow(TURN, "acme") as again:
            assert texts(again.events) == "abcdefg"

    run(work)


def test_nothing_is_read_once_nobody_reads() -> None:
    async def work(case: Case) -> None:
        await case.say("ab")
        async with case.mirrors.follow(TURN, "acme"):
            await asyncio.sleep(1)
        reads = case.store.reads
        await asyncio.sleep(5)
        assert case.store.reads == reads

    run(work)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.integers(0, 4),
    st.integers(0, 25),
)
def test_what_stands_is_what_the_readers_own_epoch_wrote(counts: list[int], epoch: int, seq: int) -> None:
    """`counts`: how much each epoch wrote. A reader keeps its position up to the first later takeover."""
    events: list[Any] = []
    ends: list[int] = []
    for number, count in enumerate(counts):
        events += ([TakenOver(number)] if number else []) + [Delta("x", [1])] * count
        ends.append(len(events))
    own = ends[epoch] if epoch < len(ends) - 1 else seq
    assert standing(events, epoch, seq) == min(seq, own)
