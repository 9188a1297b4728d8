"""Orders that wait in this process for a replica with room: how many, and who is next.

A model's queue takes tenants in turn, and a tenant's orders as they came. Only the first in it looks for a replica,
and it submits before the next one is called, so that no two take the same room.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from services.core.clock import Clock
from services.telemetry import metrics

LATELY = 10.0  # seconds that a refusal counts as demand
REFUSALS = 10_000  # of a model that are remembered


@dataclass(slots=True)
class Place:
    """In the queue of a model. `number` orders those of a tenant; `served` is set by whoever found a replica."""

    tenant: str
    number: int
    first: asyncio.Event = field(default_factory=asyncio.Event)
    served: bool = False

    async def called(self, seconds: float) -> None:
        """Returns when it is the first one, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.first.wait()


class Queue:
    """Of one model."""

    def __init__(self) -> None:
        self._tenants: dict[str, list[Place]] = {}  # the first tenant is the next one
        self._first: Place | None = None

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def enter(self, place: Place) -> None:
        places = self._tenants.setdefault(place.tenant, [])
        places.append(place)
        places.sort(key=lambda each: each.number)
        self._call()

    def leave(self, place: Place) -> None:
        """Who was served lets the other tenants go first; who gave up does not."""
        places = self._tenants[place.tenant]
        places.remove(place)
        if place.served or not places:
            del self._tenants[place.tenant]
        if place.served and places:
            self._tenants[place.tenant] = places
        self._call()

    def position(self, place: Place) -> int:
        """1 for the next one."""
        rounds = self._tenants[place.tenant].index(place)
        before, ahead = 1, rounds
        for tenant, places in self._tenants.items():
            if tenant == place.tenant:
                before = 0
            else:
                ahead += min(len(places), rounds + before)
        return ahead + 1

    def _call(self) -> None:
        first = next((places[0] for places in self._tenants.values()), None)
        if first is self._first:
            return
        if self._first is not None:
            self._first.first.clear()
        if first is not None:
            first.first.set()
        self._first = first


class WaitingRoom:
    """At most `most` orders wait, three quarters of them of one tenant. `on_demand` is called when a model's first
    order begins to wait, or is the first that is turned away for some time."""

    def __init__(self, most: int, clock: Clock) -> None:
        self.most = most
        self.share = -(-most * 3 // 4)
        self.on_demand: Callable[[], None] = lambda: None
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._refused: dict[str, deque[float]] = {}
        self._by_tenant = Counter[str]()
        self._numbers = 0

    def number(self) -> int:
        """Of an order that comes now."""
        self._numbers += 1
        return self._numbers

    def held(self, model: str) -> int:
        return len(self._queues[model]) if model in self._queues else 0

    def admits(self, tenant: str) -> bool:
        return self._by_tenant.total() < self.most and self._by_tenant[tenant] < self.share

    def refused(self, model: str) -> int:
        """Orders that were turned away in the last seconds because no replica had room."""
        times = self._refused.get(model) or deque[float]()
        while times and self._clock.monotonic() - times[0] > LATELY:
            times.popleft()
        return len(times)

    def refuse(self, model: str) -> None:
        """Counts an order that is turned away because no replica has room."""
        first = self.refused(model) == 0
        self._refused.setdefault(model, deque(maxlen=REFUSALS)).append(self._clock.monotonic())
        if first:
            self.on_demand()

    def position(self, model: str, place: Place) -> int:
        return self._queues[model].position(place)

    @contextmanager
    def place(self, model: str, tenant: str, number: int) -> Iterator[Place]:
        """Counts it, whatever the limits."""
        queue = self._queues.setdefault(model, Queue())
        place, first = Place(tenant, number), len(queue) == 0
        queue.enter(place)
        self._by_tenant[tenant] += 1
        metrics.HELD.labels(model).inc()
        if first:
            self.on_demand()
        try:
            yield place
        finally:
            queue.leave(place)
            self._by_tenant -= Counter((tenant,))
            metrics.HELD.labels(model).dec()
