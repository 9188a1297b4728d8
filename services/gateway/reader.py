"""Reads a turn from a position on, wherever it runs, and stays with it when it changes hands."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import NamedTuple, Self

from services.core.errors import OutOfRange
from services.core.events import Event, TakenOver
from services.gateway.deps import Deps
from services.journal.memory import Left, MemoryJournal
from services.journal.mirror import epoch_at, standing
from services.journal.port import Entry

CATCH_UP = 5.0  # seconds for the store to reach a position that a reader has from the turn's own gateway


class Rewound(NamedTuple):
    """The reader was ahead: only these events stand."""

    seq: int
    events: Sequence[Event]


class Reader:
    """`epoch` and `seq` are the position of the last event that was read."""

    def __init__(self, deps: Deps, turn: str, tenant: str, epoch: int = 0, seq: int = 0) -> None:
        self._deps = deps
        self.turn = turn
        self.epoch = epoch if seq else 0
        self.seq = seq
        self._told = self.epoch, self.seq  # position of what was given to whoever reads
        self._tenant = tenant
        self._journal: MemoryJournal | None = None
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.aclose()

    async def open(self) -> MemoryJournal:
        """The journal to read. Raises NotFound, StoreAway."""
        if self._journal is None:
            turn = self._deps.turns.find(self.turn, self._tenant)
            if turn is not None:
                self._held.enter_context(self._deps.turns.reading(turn))
                self._journal = turn.journal
            else:
                mirror = self._deps.mirrors.follow(self.turn, self._tenant)
                self._journal = await self._held.enter_async_context(mirror)
        return self._journal

    async def read(self) -> Sequence[Entry] | Rewound:
        """What comes next, of one epoch; waits for it. Empty once the terminal event was read.

        Raises NotFound, StoreAway, Draining, and OutOfRange for a position that the turn never had.
        """
        while True:
            fresh = self._journal is None
            try:
                journal = await self.open()
                if fresh and self.seq and (rewound := await self._found(journal)) is not None:
                    self._told = self.epoch, self.seq
                    return rewound
                entries = await journal.read(self.seq)
            except Left as left:
                await self._follow(left)
            else:
                if not entries or (entries := self._of_one_epoch(entries)):
                    self._told = self.epoch, self.seq
                    return entries

    async def _follow(self, left: Left) -> None:
        if left.error is not None:
            raise left.error
        await self._held.aclose()
        self._journal, self.turn = None, left.turn
        # A takeover that was told to nobody may be forgotten where the reading goes on.
        self.epoch, self.seq = self._told

    async def _found(self, journal: MemoryJournal) -> Rewound | None:
        """Finds the position in the journal; waits for the store to reach it."""
        known = 0
        try:
            async with asyncio.timeout(CATCH_UP):
                while (seq := standing(journal.events, self.epoch, self.seq, known)) > len(journal):
                    known = len(journal)
                    if not await journal.read(known):
                        raise OutOfRange(f"after_seq: the turn has {len(journal)} events")
        except TimeoutError:
            raise OutOfRange(f"after_seq: the turn has {len(journal)} events so far") from None
        if seq == self.seq and self.epoch <= epoch_at(journal.events, seq):
            return None
        self.seq = seq
        return Rewound(seq, journal.events[:seq])

    def _of_one_epoch(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The entries up to the next change of hands, which itself is told to nobody."""
        first = entries[0].event
        if isinstance(first, TakenOver):
            self.epoch, self.seq, entries = first.epoch, entries[0].seq, entries[1:]
        end = next((i for i, e in enumerate(entries) if isinstance(e.event, TakenOver)), len(entries))
        if end:
            self.seq = entries[end - 1].seq
        return entries[:end]
