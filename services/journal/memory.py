"""A journal in the memory of one gateway process: lives as long as its turn."""

import asyncio
from collections.abc import Sequence

from services.core.events import Event, Failed, Finished
from services.journal.port import Entry


class MemoryJournal:
    """Appends are synchronous and cost no task switch: a waiting reader is woken once for all of a step's events."""

    __slots__ = ("_events", "_waiters", "closed")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._waiters: list[asyncio.Future[None]] = []
        self.closed = False

    def append(self, event: Event) -> int:
        if self.closed:
            raise ValueError("the journal has its terminal event")
        self.closed = isinstance(event, Finished | Failed)
        self._events.append(event)
        self._wake()
        return len(self._events)

    async def read(self, after: int) -> Sequence[Entry]:
        if not self.closed and len(self._events) <= after:
            await self._next()
        return [Entry(seq, event) for seq, event in enumerate(self._events[after:], after + 1)]

    async def _next(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
