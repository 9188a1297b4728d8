"""Copies what this gateway's turns append to the store, all of them in one round trip every `period` seconds."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from services.core.clock import Clock
from services.core.errors import Precondition, StoreAway
from services.core.events import Event
from services.journal.memory import MemoryJournal
from services.journal.port import Batch, JournalStore, Record, Reply, Verdict

PERIOD = 0.04  # seconds that events wait for others
NEWS = 0.5  # seconds between two looks at turns that append nothing
PATIENCE = 1.0  # seconds that an ending waits for a store that is away
UNTOLD = "the turn has ended, but the store that keeps it does not answer: read it again"
BATCH = 256  # turns in one round trip
EVENTS = 8192  # in one round trip, about; what waited for longer goes in several
PART = 1024  # events of one turn in one round trip
TOLD = 512  # turns whose ending was told without the store and that wait for it all the same
FIRST_RETRY, LAST_RETRY = 0.05, 0.5  # seconds


@dataclass(slots=True, eq=False)
class Recording:
    """One turn on its way to the store. `on_verdict` hears of CANCELLED and FENCED, `on_size` of the turn's
    bytes, `on_watched` of the seconds since a reader elsewhere was seen."""

    record: Callable[[], Record]  # as of now
    journal: MemoryJournal
    must: bool  # its readers must not be told an ending that the store does not have
    on_verdict: Callable[[Verdict], None]
    on_size: Callable[[int], None]
    on_watched: Callable[[float], None]
    sent: int = 0
    away: float | None = None  # since when the store does not take it
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)
    over: bool = False

    def batch(self) -> Batch:
        record, journal = self.record(), self.journal
        events: Sequence[Event] = journal.events[journal.saved : journal.saved + PART]
        self.sent = len(events)
        return Batch(
            record.turn,
            record.tenant,
            record.epoch,
            journal.saved + 1,
            events,
            journal.closed and journal.saved + len(events) == len(journal),
            record.keep,
        )

    @property
    def due(self) -> int:
        """Events of its next batch."""
        return min(PART, len(self.journal) - self.journal.saved)


class Recorder:
    def __init__(self, store: JournalStore, clock: Clock, period: float = PERIOD) -> None:
        self._store = store
        self._clock = clock
        self._period = period
        self._all: dict[MemoryJournal, Recording] = {}
        self._dirty: dict[MemoryJournal, Recording] = {}
        self._wake, self._urgent = asyncio.Event(), asyncio.Event()
        self._asked = float("-inf")  # when all turns were last asked about
        self._flushing = asyncio.Lock()  # what is on its way is counted when its reply comes

    def __len__(self) -> int:
        return len(self._all)

    def keeps(self, turn: str) -> bool:
        """Whether events of this turn, or its ending, are still on their way."""
        return any(recording.record().turn == turn for recording in self._all.values())

    @property
    def lag(self) -> int:
        """Events that the store does not have yet."""
        return sum(len(journal) - journal.saved for journal in self._all)

    def follow(self, recording: Recording) -> None:
        """From here on, what the journal gets goes to the store, whose `create` has its record."""
        self._all[recording.journal] = recording
        recording.journal.keep(self._note)
        if len(recording.journal) > recording.journal.saved:
            self._note(recording.journal)

    def forget(self, journal: MemoryJournal) -> None:
        """Nothing more of it goes to the store."""
        self._dirty.pop(journal, None)
        if (recording := self._all.pop(journal, None)) is not None:
            recording.over = True
            self._tell(recording)

    async def saved(self, journal: MemoryJournal) -> bool:
        """Waits until the store has all that was appended; False if it will not, or is away too long."""
        recording = self._all.get(journal)
        if recording is None:
            return False
        self._note(journal)
        self._urgent.set()
        end = len(journal)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while journal.saved < end and not recording.over:
                    recording.waiters.append(waiter := asyncio.get_running_loop().create_future())
                    await waiter
        return journal.saved >= end

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._turn_comes()
            if (now := self._clock.monotonic()) - self._asked >= NEWS:
                self._asked, self._dirty = now, self._dirty | self._all
            await self.flush()
            if (away := self._give_up()) is not None:
                await asyncio.sleep(min(max(FIRST_RETRY, away / 4), LAST_RETRY))

    async def _turn_comes(self) -> None:
        """Returns a period after the first event, at once for an ending, and at the latest after NEWS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(NEWS):
                await self._wake.wait()
            async with asyncio.timeout(self._period):
                await self._urgent.wait()

    async def flush(self) -> None:
        """Sends what there is; what could not be sent stays for the next time."""
        async with self._flushing:
            self._wake.clear()
            self._urgent.clear()
            dirty, self._dirty = list(self._dirty.values()), {}
            for trip in _trips(dirty):
                await self._send([recording for recording in trip if not recording.over])

    async def _send(self, recordings: Sequence[Recording]) -> None:
        try:
            replies = await self._store.append([recording.batch() for recording in recordings])
        except StoreAway:
            for recording in recordings:
                self._missed(recording)
            return
        for recording, reply in zip(recordings, replies, strict=True):
            if not recording.over:
                await self._judge(recording, reply)

    async def _judge(self, recording: Recording, reply: Reply) -> None:
        journal, verdict = recording.journal, reply.verdict
        if verdict is Verdict.AWAY:
            self._missed(recording)
            return
        if verdict is Verdict.GONE:  # a full store says so too, and takes nothing
            await self._create(recording)
            return
        recording.away = None
        if verdict is Verdict.FENCED:
            self.forget(journal)
            recording.on_verdict(verdict)
        elif verdict is Verdict.REALIGN:
            journal.saved = reply.seq
            self._again(recording)
        else:
            self._kept(recording, reply)

    def _kept(self, recording: Recording, reply: Reply) -> None:
        journal = recording.journal
        journal.saved += recording.sent
        if journal.closed and journal.saved == len(journal):
            journal.seal()
            self.forget(journal)
            return
        if journal.saved < len(journal):
            self._note(journal)
        self._tell(recording)
        if reply.verdict is Verdict.CANCELLED:
            recording.on_verdict(reply.verdict)
        recording.on_size(reply.size)
        recording.on_watched(reply.watched)

    async def _create(self, recording: Recording) -> None:
        """The store lost the turn, as after a restart: what is here makes it whole, unless another turn has its
        key by now."""
        record = recording.record()
        try:
            holder = await self._store.create(record)
        except StoreAway:
            self._missed(recording)
            return
        except Precondition:
            holder = ""
        if holder != record.turn:
            self.forget(recording.journal)
            recording.on_verdict(Verdict.FENCED)
            return
        recording.away, recording.journal.saved = None, 0
        self._again(recording)

    def _missed(self, recording: Recording) -> None:
        if recording.away is None:
            recording.away = self._clock.monotonic()
        self._again(recording)

    def _again(self, recording: Recording) -> None:
        if not recording.over:
            self._dirty[recording.journal] = recording
            self._wake.set()

    def _note(self, journal: MemoryJournal) -> None:
        if (recording := self._all.get(journal)) is None:
            return
        self._dirty[journal] = recording
        self._wake.set()
        if journal.closed:
            self._urgent.set()

    def _tell(self, recording: Recording) -> None:
        for waiter in recording.waiters:
            if not waiter.done():
                waiter.set_result(None)
        recording.waiters.clear()

    def _give_up(self) -> float | None:
        """While the store is away, endings that may be told without it are; the others say what is missing.
        Returns for how many seconds it has been away, if it is."""
        now, longest = self._clock.monotonic(), None
        for journal, recording in self._all.items():
            if recording.away is None:
                continue
            longest = max(longest or 0.0, now - recording.away)
            if journal.closed and now - recording.away >= PATIENCE:
                self._tell_all_the_same(recording)
        self._forget_the_newest()
        return longest

    def _forget_the_newest(self) -> None:
        """Of those that only the store still waits for. The oldest may have begun before it was away: it has them
        as running. The newest ones it never heard of, and a long outage brings very many of them."""
        told = [j for j, recording in self._all.items() if recording.away is not None and j.told_to_its_end]
        for journal in told[TOLD:]:
            self.forget(journal)

    def _tell_all_the_same(self, recording: Recording) -> None:
        if not recording.must:
            recording.journal.seal()
            return
        away = StoreAway(UNTOLD)
        away.retry_after = None  # of the same call: it would run again, unless it has a key
        recording.journal.leave(recording.record().turn, away)


def _trips(dirty: Sequence[Recording]) -> Iterator[Sequence[Recording]]:
    """Each has as many turns, and about as many events, as one call to the store may take."""
    trip: list[Recording] = []
    events = 0
    for recording in dirty:
        if trip and (len(trip) == BATCH or events + recording.due > EVENTS):
            yield trip
            trip, events = [], 0
        trip.append(recording)
        events += recording.due
    if trip:
        yield trip
