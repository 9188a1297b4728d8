"""Slots for turns in one worker: refuses early instead of queueing without bound."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from services.core.errors import Draining, Full


class Admission:
    """At most `limit` turns at once, and `share` of one tenant. After `close()` none is admitted any more."""

    def __init__(self, limit: int, share: int | None = None) -> None:
        self._limit = limit
        self._share = limit if share is None else share
        self._by_tenant: Counter[str] = Counter()
        self._open = True
        self._idle = asyncio.Event()
        self._idle.set()
        self.held = 0

    @contextmanager
    def slot(self, tenant: str = "", *, forced: bool = False) -> Iterator[None]:
        """Raises Full with a delay to retry after, or Draining. `forced`: for a turn that was admitted elsewhere."""
        if not (self._open or forced):
            raise Draining("this gateway is shutting down; another one answers")
        if self.held >= self._limit and not forced:
            raise Full(f"this gateway runs its limit of {self._limit} turns")
        if self._by_tenant[tenant] >= self._share and not forced:
            raise Full(f"this gateway runs its limit of {self._share} turns for one tenant")
        self.held += 1
        self._by_tenant[tenant] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.held -= 1
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
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
