"""What a turn appends reaches the store once and in order, however often the store or its replies fail."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import Cancelled, StoreAway
from services.core.events import Delta, Failed
from services.journal.memory import Left, MemoryJournal
from services.journal.memory_store import MemoryJournalStore
from services.journal.port import Batch, Claim, Record, Reply, Verdict
from services.journal.recorder import EVENTS, PART, PATIENCE, TOLD, Recorder, Recording
from tests.sim.loop import LoopClock, VirtualLoop

TURN = "turn_" + "a" * 32
SOUND, LOST, REPLY_LOST, EMPTY = "sound", "lost", "reply lost", "restarts empty"


class Failing(MemoryJournalStore):
    """Each append meets the next of the fates; when there are none left, all is well."""

    def __init__(self, clock: LoopClock, fates: Sequence[str]) -> None:
        super().__init__(clock)
        self.fates = list(fates)

    async def append(self, batches: Sequence[Batch]) -> Sequence[Reply]:
        fate = self.fates.pop(0) if self.fates else SOUND
        await asyncio.sleep(0.003)
        if fate == EMPTY:
            self._turns.clear()
        if fate == LOST:
            raise StoreAway("lost")
        replies = await super().append(batches)
        if fate == REPLY_LOST:
            raise StoreAway("reply lost")
        return replies


@dataclass
class Case:
    loop: VirtualLoop
    fates: Sequence[str] = ()
    must: bool = True
    claim: Claim | None = None
    heard: list[Verdict] = field(default_factory=list)
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    async def begin(self) -> None:
        self.clock = LoopClock(self.loop)
        self.store = Failing(self.clock, self.fates)
        self.recorder = Recorder(self.store, self.clock)
        await self.store.create(self.record())
        ignored: Callable[[Any], None] = lambda _: None  # noqa: E731
        self.recorder.follow(
            Recording(self.record, self.journal, self.must, self.heard.append, ignored, ignored)
        )
        self.running = asyncio.create_task(self.recorder.run())

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])

    def record(self) -> Record:
        return Record(TURN, "acme", "one", 0, b"", 1000.0, 600.0, self.claim)

    async def kept(self) -> list[str]:
        pages = await self.store.read(TURN, "acme", 0)
        return [getattr(entry.event, "text", "end") for page in pages for entry in page.entries]


def run(work: Callable[[VirtualLoop], Any]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work(loop))
    finally:
        loop.close()


FATES = st.lists(st.sampled_from([SOUND, LOST, REPLY_LOST, EMPTY]), max_size=12)
STEPS = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.3)), max_size=12)


@given(fates=FATES, steps=STEPS, must=st.booleans())
@settings(max_examples=150, deadline=None)
def test_events_reach_the_store_once_and_in_order(
    fates: list[str], steps: list[tuple[int, float]], must: bool
) -> None:
    async def work(loop: VirtualLoop) -> None:
        case = Case(loop, fates, must)
        await case.begin()
        count = 0
        for more, pause in steps:
            for _ in range(more):
                case.journal.append(Delta(f"{count} ", [count]))
                count += 1
            await asyncio.sleep(pause)
        case.journal.append(Failed(Cancelled("over")))
        await case.journal.read(len(case.journal) - 1)
        assert not must or "end" in await case.kept()  # it is told when it is kept
        await asyncio.sleep(20)
        assert await case.kept() == [f"{i} " for i in range(count)] + ["end"]
        assert not len(case.recorder) and not case.recorder.lag
        await case.end()

    run(work)


@given(fates=FATES, count=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_saved_means_that_the_store_has_it(fates: list[str], count: int) -> None:
    async def work(loop: VirtualLoop) -> None:
        case = Case(loop, [fate for fate in fates if fate != EMPTY])
        await case.begin()
        case.journal.extend([Delta(f"{i} ", [i]) for i in range(count)])
        began = loop.time()
        saved = await case.recorder.saved(case.journal)
        assert loop.time() - began <= PATIENCE + 0.01
        assert not saved or len(await case.kept()) == count
        await case.end()

    run(work)


def test_a_turn_that_another_gateway_has_is_given_up_once() -> None:
    async def work(loop: VirtualLoop) -> None:
        case = Case(loop)
        await case.begin()
        case.journal.append(Delta("0 ", [0]))
        await asyncio.sleep(0.1)
        await case.store.take(TURN, "one", "two")
        for i in range(1, 4):
            case.journal.append(Delta(f"{i} ", [i]))
            await asyncio.sleep(0.1)
        assert case.heard == [Verdict.FENCED]
        assert await case.kept() == ["0 "] and not len(case.recorder)
        await case.end()

    run(work)


def test_a_turn_without_news_hears_of_its_cancel() -> None:
    async def work(loop: VirtualLoop) -> None:
        case = Case(loop)
        await case.begin()
        case.journal.append(Delta("0 ", [0]))
        await asyncio.sleep(0.1)
        await case.store.cancel(TURN)
        await asyncio.sleep(1)
        assert case.heard and set(case.heard) == {Verdict.CANCELLED}
        await case.end()

    run(work)


def test_a_turn_without_news_hears_of_its_cancel_beside_one_that_never_rests() -> None:
    loop = VirtualLoop()
    case, busy = Case(loop), MemoryJournal()

    async def go() -> None:
        await case.begin()
        other = Record("turn_" + "b" * 32, "acme", "one", 0, b"", 1000.0, 600.0)
        await case.store.create(other)
        case.recorder.follow(
            Recording(lambda: other, busy, False, lambda _: None, lambda _: None, lambda _: None)
        )
        await case.store.cancel(TURN)
        for _ in range(200):
            busy.append(Delta("x", [1]))
            await asyncio.sleep(0.01)
        await case.end()

    loop.run_until_complete(go())
    assert Verdict.CANCELLED in case.heard


def test_an_ending_that_needs_no_store_is_told_without_it_after_a_while() -> None:
    async def work(loop: VirtualLoop) -> None:
        case = Case(loop, [LOST] * 1000, must=False)
        await case.begin()
        case.journal.append(Failed(Cancelled("over")))
        await case.journal.read(0)
        assert PATIENCE <= loop.time() <= PATIENCE + 1
        await case.end()

    run(work)


def test_two_flushes_at_once_lose_no_ending() -> None:
    """A gateway that shuts down flushes beside its recorder, whose last batch may be on its way."""

    async def work(loop: VirtualLoop) -> None:
        case = Case(loop)
        await case.begin()
        case.journal.append(Delta("0 ", [0]))
        one = asyncio.create_task(case.recorder.flush())
        await asyncio.sleep(0.001)
        case.journal.append(Failed(Cancelled("over")))
        await asyncio.gather(one, case.recorder.flush())
        await case.journal.read(len(case.journal) - 1)
        assert await case.kept() == ["0 ", "end"]
        await case.end()

    run(work)


def test_a_turn_whose_key_another_request_has_by_now_is_given_up() -> None:
    """The store lost the turn with its key, and the key came again first."""

    async def work(loop: VirtualLoop) -> None:
        case = Case(loop, [SOUND, EMPTY], claim=Claim("k", "digest", 1000.0))
        await case.begin()
        case.journal.append(Delta("0 ", [0]))
        await asyncio.sleep(0.1)
        case.store._claims.clear()
        other = Record(
            "turn_" + "b" * 32, "acme", "two", 0, b"", 1000.0, 600.0, Claim("k", "another", 1000.0)
        )
        await case.store.create(other)
        case.journal.append(Delta("1 ", [1]))
        await asyncio.sleep(0.2)
        assert case.heard == [Verdict.FENCED] and not case.running.done()
        await case.end()

    run(work)


class Measured(MemoryJournalStore):
    def __init__(self, clock: LoopClock) -> None:
        super().__init__(clock)
        self.trips: list[int] = []
        self.away = True

    async def append(self, batches: Sequence[Batch]) -> Sequence[Reply]:
        await asyncio.sleep(0.001)
        if self.away:
            raise StoreAway("away")
        self.trips.append(sum(len(batch.events) for batch in batches))
        return await super().append(batches)


def follow(recorder: Recorder, record: Record, journal: MemoryJournal) -> None:
    ignored: Callable[[Any], None] = lambda _: None  # noqa: E731
    recorder.follow(Recording(lambda: record, journal, False, ignored, ignored, ignored))


def test_what_waited_for_the_store_goes_in_trips_that_it_can_take() -> None:
    async def work(loop: VirtualLoop) -> None:
        clock = LoopClock(loop)
        store = Measured(clock)
        recorder, journals = Recorder(store, clock), [MemoryJournal() for _ in range(12)]
        running = asyncio.create_task(recorder.run())
        for i, journal in enumerate(journals):
            record = Record(f"turn_{i:032x}", "acme", "one", 0, b"", 1000.0, 600.0)
            await store.create(record)
            follow(recorder, record, journal)
            journal.extend([Delta("a", [1])] * (3 * PART))
            journal.append(Failed(Cancelled("over")))
        await asyncio.sleep(5)
        store.away = False
        await asyncio.sleep(5)
        assert max(store.trips) <= EVENTS and sum(store.trips) == 12 * (3 * PART + 1)
        assert not len(recorder) and not await store.orphans("one")
        running.cancel()

    run(work)


def test_turns_that_came_and_went_while_the_store_was_away_do_not_pile_up() -> None:
    async def work(loop: VirtualLoop) -> None:
        clock = LoopClock(loop)
        store = Measured(clock)
        recorder = Recorder(store, clock)
        running = asyncio.create_task(recorder.run())
        known = Record("turn_" + "a" * 32, "acme", "one", 0, b"", 1000.0, 600.0)
        await store.create(known)
        for i in range(3 * TOLD):
            journal = MemoryJournal()
            record = known if i == 0 else Record(f"turn_{i:032x}", "acme", "one", 0, b"", 1000.0, 600.0)
            follow(recorder, record, journal)
            journal.append(Failed(Cancelled("over")))
        await asyncio.sleep(5)
        assert len(recorder) == TOLD
        store.away = False
        await asyncio.sleep(5)
        stored = await store.find(known.turn)
        assert stored is not None and stored.ended and not len(recorder)
        running.cancel()

    run(work)


class Forgetful(Failing):
    """It forgot the turn and is full: it answers, and takes nothing."""

    async def create(self, record: Record) -> str:
        if self.fates:
            raise StoreAway("full")
        return await super().create(record)


@pytest.mark.parametrize("must", [True, False])
def test_an_ending_that_a_full_store_does_not_take_is_told_all_the_same(must: bool) -> None:
    async def work(loop: VirtualLoop) -> None:
        case = Case(loop, must=must)
        await case.begin()
        case.store.__class__ = Forgetful
        case.store.fates = [EMPTY] * 10_000
        case.journal.append(Delta("a", [1]))
        case.journal.append(Failed(Cancelled("over")))
        async with asyncio.timeout(PATIENCE + 2):
            if must:
                with pytest.raises(Left):
                    await case.journal.read(1)
            else:
                assert len(await case.journal.read(1)) == 1
        case.store.fates = []
        await asyncio.sleep(5)
        assert await case.kept() == ["a", "end"] and not len(case.recorder)
        await case.end()

    run(work)
