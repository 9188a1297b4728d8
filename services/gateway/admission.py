"""Slots for turns in one worker: refuses early instead of queueing without bound."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.core.errors import Draining, Full


class Admission:
    """At most `limit` turns at once. After `close()` none is admitted any more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = True
        self._idle = asyncio.Event()
        self._idle.set()
        self.held = 0

    @contextmanager
    def slot(self, *, forced: bool = False) -> Iterator[None]:
        """Raises Full with a delay to retry after, or Draining. `forced`: for a turn that was admitted elsewhere."""
        if not (self._open or forced):
            raise Draining("this gateway is shutting down; another one answers")
        if self.held >= self._limit and not forced:
            raise Full(f"this gateway runs its limit of {self._limit} turns")
        self.held += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.held -= 1
            if not self.held:
                self._idle.set()

    @property
    def closed(self) -> bool:
        return not self._open

    def close(self) -> None:
        self._open = False

    async def idle(self) -> None:
        """Returns when no slot is held."""
        await self._idle.wait()
