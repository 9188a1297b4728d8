"""Orders that wait in this process for a replica: how many, who is next, and what is told of them.

A model's queue takes tenants in turn, and a tenant's orders as they came. Only the first in it looks for a replica:
whoever finds one submits before the next is called, so that no two take the same room.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from services.core.clock import Clock
from services.core.errors import Full, HeadraceError, NoReplica
from services.telemetry import metrics

LATELY = 10.0  # seconds that a refusal counts as demand
REFUSALS = 10_000  # that are remembered


@dataclass(slots=True)
class Place:
    """In the queue of a model. `number` orders those of a tenant."""

    tenant: str
    number: int
    first: asyncio.Event = field(default_factory=asyncio.Event)

    async def called(self, seconds: float) -> None:
        """Returns when it is the first one, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.first.wait()


class Queue:
    """Of one model."""

    def __init__(self) -> None:
        self._tenants: dict[str, list[Place]] = {}  # the first tenant is the next one

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def of(self, tenant: str) -> int:
        return len(self._tenants.get(tenant, ()))

    def enter(self, place: Place) -> None:
        places = self._tenants.setdefault(place.tenant, [])
        places.append(place)
        places.sort(key=lambda each: each.number)
        self._call()

    def leave(self, place: Place, *, served: bool) -> None:
        """Who was served passes the turn on to the next tenant; who gave up does not."""
        places = self._tenants[place.tenant]
        places.remove(place)
        if served or not places:
            del self._tenants[place.tenant]
        if served and places:
            self._tenants[place.tenant] = places
        self._call()

    def position(self, place: Place) -> int:
        """1 for the next one."""
        mine = self._tenants[place.tenant]
        rounds = mine.index(place)
        ahead, later = rounds, False
        for tenant, places in self._tenants.items():
            if tenant == place.tenant:
                later = True
            else:
                ahead += min(len(places), rounds if later else rounds + 1)
        return ahead + 1

    def _call(self) -> None:
        first = next(iter(self._tenants.values()), None)
        if first is not None and not first[0].first.is_set():
            for places in self._tenants.values():
                for place in places:
                    place.first.clear()
            first[0].first.set()


class WaitingRoom:
    """At most `most` orders wait, and three quarters of them are one tenant's. `on_wait(model)` hears of the first
    one that waits for a model, and of the first that was refused lately."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._share = -(-most * 3 // 4)
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._refused: dict[str, deque[float]] = {}
        self._by_tenant = Counter[str]()
        self._numbers = 0
        self.on_wait: Callable[[str], None] = lambda model: None

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def held(self, model: str) -> int:
        return len(self._queues[model]) if model in self._queues else 0

    def refused(self, model: str) -> int:
        """Orders that no replica took in the last seconds, and that were not held."""
        times = self._refused.get(model, deque())
        while times and self._clock.monotonic() - times[0] > LATELY:
            times.popleft()
        return len(times)

    def refuse(self, model: str) -> None:
        """Counts an order that is turned away because no replica has room."""
        first = not self.refused(model)
        self._refused.setdefault(model, deque(maxlen=REFUSALS)).append(self._clock.monotonic())
        if first:
            self.on_wait(model)

    def position(self, model: str, place: Place) -> int:
        return self._queues[model].position(place)

    @contextmanager
    def place(self, model: str, tenant: str, number: int, *, forced: bool) -> Iterator["Standing"]:
        """Raises Full or NoReplica's kin by way of `crowded` beyond the limits, unless `forced`."""
        queue = self._queues.setdefault(model, Queue())
        place = Place(tenant, number)
        standing = Standing(queue, place)
        first = not queue
        queue.enter(place)
        self._by_tenant[tenant] += 1
        metrics.HELD.labels(model).inc()
        if first:
            self.on_wait(model)
        try:
            yield standing
        finally:
            queue.leave(place, served=standing.served)
            self._by_tenant -= Counter((tenant,))
            metrics.HELD.labels(model).dec()
