"""Turns that another gateway runs, or that have ended, as the store has them: one copy for all readers here."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.core.clock import Clock
from services.core.errors import HeadraceError, Internal, NotFound, StoreAway
from services.core.events import TakenOver
from services.journal.memory import MemoryJournal
from services.journal.port import JournalStore, Page

PERIOD = 0.05  # seconds between two looks
WATCH = 1.0  # seconds between two signs to the turn's gateway that it is read
PATIENCE = 2.0  # seconds that the store may be away
AT_ONCE = 16  # mirrors that ask the store: hundreds would take all connections, and each other for an outage

Start = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


def absent() -> NotFound:
    return NotFound("no such turn")


@dataclass(slots=True)
class Mirror:
    turn: str
    tenant: str
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    epoch: int = 0
    readers: int = 0
    task: "asyncio.Task[None] | None" = None


class Mirrors:
    def __init__(self, store: JournalStore, clock: Clock, start: Start) -> None:
        self._store = store
        self._clock = clock
        self._start = start
        self._all: dict[str, Mirror] = {}
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._opening: dict[tuple[str, str], asyncio.Task[Mirror]] = {}

    @asynccontextmanager
    async def follow(self, turn: str, tenant: str) -> AsyncIterator[MemoryJournal]:
        """The turn's journal, with what the store has of it now. Raises NotFound, StoreAway."""
        mirror = self._all.get(turn)
        if mirror is None or mirror.tenant != tenant:
            found = await self._together(turn, tenant)
            mirror = self._all.get(turn) or self._begin(found)
        mirror.readers += 1
        try:
            yield mirror.journal
        finally:
            mirror.readers -= 1
            if not mirror.readers:
                self._close(mirror)

    async def _together(self, turn: str, tenant: str) -> Mirror:
        """Many that ask for one turn at once are one reader of the store."""
        if (opening := self._opening.get((turn, tenant))) is None:
            opening = asyncio.create_task(self._open(turn, tenant), name=f"opening {turn}")
            self._opening[turn, tenant] = opening
            opening.add_done_callback(lambda task: self._opened(turn, tenant, task))
        return await asyncio.shield(opening)

    def _opened(self, turn: str, tenant: str, task: "asyncio.Task[Mirror]") -> None:
        del self._opening[turn, tenant]
        if not task.cancelled():
            task.exception()  # those who wait are told; there may be none left

    async def _open(self, turn: str, tenant: str) -> Mirror:
        stored = await self._store.find(turn)
        if stored is None or stored.record.tenant != tenant:
            raise absent()
        mirror = Mirror(turn, tenant)
        await self._store.watch(turn)
        await self._read(mirror)
        return mirror

    def _begin(self, mirror: Mirror) -> Mirror:
        if not (mirror.journal.closed or mirror.journal.left):
            self._all[mirror.turn] = mirror
            mirror.task = self._start(self._run(mirror), f"mirror {mirror.turn}")
        return mirror

    def _close(self, mirror: Mirror) -> None:
        if self._all.get(mirror.turn) is mirror:
            del self._all[mirror.turn]
        if mirror.task is not None:
            mirror.task.cancel()

    async def _run(self, mirror: Mirror) -> None:
        try:
            await self._copy(mirror)
        except HeadraceError as error:
            self._end(mirror, error)

    async def _copy(self, mirror: Mirror) -> None:
        reached = watched = self._clock.monotonic()
        while not mirror.journal.closed:
            await asyncio.sleep(PERIOD)
            now = self._clock.monotonic()
            try:
                async with self._asking:
                    await self._read(mirror)
                    if now - watched >= WATCH:
                        watched = now
                        await self._attend(mirror)
            except StoreAway:
                if now - reached > PATIENCE:
                    raise
            else:
                reached = now

    async def _attend(self, mirror: Mirror) -> None:
        await self._store.watch(mirror.turn)
        if await self._store.find(mirror.turn) is None:
            raise absent()

    async def _read(self, mirror: Mirror) -> None:
        try:
            pages = await self._store.read(mirror.turn, mirror.tenant, len(mirror.journal))
        except ValueError:
            raise Internal("the turn's journal cannot be read") from None
        for page in pages:
            if not self._follows(mirror, page):
                self._end(mirror, None)  # a failover of the store took back what was read: from the beginning
                return
            mirror.epoch = page.epoch
            mirror.journal.extend([entry.event for entry in page.entries])

    def _follows(self, mirror: Mirror, page: Page) -> bool:
        seq, event = page.entries[0]
        if seq != len(mirror.journal) + 1:
            return False
        return page.epoch == mirror.epoch or not mirror.journal.events or isinstance(event, TakenOver)

    def _end(self, mirror: Mirror, error: HeadraceError | None) -> None:
        if self._all.get(mirror.turn) is mirror:
            del self._all[mirror.turn]
        mirror.journal.leave(mirror.turn, error)
        if mirror.task is not None and error is None:
            mirror.task.cancel()


def epoch_at(events: Sequence[Any], seq: int) -> int:
    """The epoch of the turn after its first `seq` events."""
    return max((event.epoch for event in events[:seq] if isinstance(event, TakenOver)), default=0)


def standing(events: Sequence[Any], epoch: int, seq: int, known: int = 0) -> int:
    """How much of what a reader of `epoch` has up to `seq` still stands: up to the next takeover, if it was
    ahead of it. The first `known` events have been looked at before."""
    for at in range(known, min(seq, len(events))):
        if isinstance(event := events[at], TakenOver) and event.epoch > epoch:
            return at
    return seq
