"""A turn's journal in the memory of one gateway process: what its readers there read."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from services.core.errors import HeadraceError
from services.core.events import Event, Failed, Finished
from services.journal.port import Entry

MOST = 1024  # events of one read: what comes of them is one message, made in one step of the event loop


class Left(Exception):
    """The journal goes on elsewhere: a reader finds the turn `turn` in the store, or is told the error."""

    def __init__(self, turn: str, error: HeadraceError | None = None) -> None:
        super().__init__(turn)
        self.turn = turn
        self.error = error


def _nobody(_: "MemoryJournal") -> None: ...


class MemoryJournal:
    """Appends are synchronous and cost no task switch: a waiting reader is woken once for all of a step's events.

    Once a store is to keep it, its readers get the terminal event only when the store has it: after `seal`.
    """

    __slots__ = ("_events", "_left", "_on_append", "_sealed", "_waiters", "closed", "saved")

    def __init__(self, events: Sequence[Event] = ()) -> None:
        self._events: list[Event] = list(events)
        self._waiters: list[asyncio.Future[None]] = []
        self._sealed = True
        self._on_append: Callable[[MemoryJournal], None] = _nobody
        self._left: Left | None = None
        self.saved = len(self._events)  # so many events are in the store
        self.closed = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> Sequence[Event]:
        return self._events

    @property
    def told(self) -> Sequence[Event]:
        """What readers may be told so far."""
        return self._events[: self._readable]

    @property
    def told_to_its_end(self) -> bool:
        return self.closed and self._sealed

    @property
    def sealed(self) -> bool:
        """No store is to keep it, or none is waited for any more."""
        return self._sealed

    @property
    def left(self) -> bool:
        return self._left is not None

    def append(self, event: Event) -> int:
        if self.closed:
            raise ValueError("the journal has its terminal event")
        self.closed = isinstance(event, Finished | Failed)
        self._events.append(event)
        if self.saved == len(self._events) - 1 or self.closed:
            self._on_append(self)
        if not self.closed or self._sealed:
            self._wake()
        return len(self._events)

    def extend(self, events: Sequence[Event]) -> None:
        for event in events:
            self.append(event)

    def keep(self, on_append: Callable[["MemoryJournal"], None]) -> None:
        """A store keeps it from here on. `on_append` hears of the first event that the store does not have, and
        of the last one."""
        self._sealed, self._on_append = False, on_append

    def seal(self) -> None:
        """The store has the terminal event, or nobody waits for that."""
        self._sealed = True
        self._wake()

    def leave(self, turn: str, error: HeadraceError | None = None) -> None:
        """Readers that have read what is here are sent on to `turn` in the store, or are told `error`."""
        self._left = Left(turn, error)
        self._wake()

    async def read(self, after: int) -> Sequence[Entry]:
        """At most MOST of them. Raises Left once there is nothing more to read here."""
        while (end := self._readable) <= after and not (self.closed and self._sealed):
            if self._left is not None:
                self._go(self._left)
            await self._next()
        end = min(end, after + MOST)
        return [Entry(seq, event) for seq, event in enumerate(self._events[after:end], after + 1)]

    @property
    def _readable(self) -> int:
        return len(self._events) - (self.closed and not self._sealed)

    def _go(self, left: Left) -> NoReturn:
        raise Left(left.turn, left.error)

    async def _next(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
