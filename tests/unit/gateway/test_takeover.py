"""When a gateway trusts its own view of the store enough to give another one up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.core.errors import StoreAway
from services.gateway.app import Stores
from services.gateway.takeover import Takeover
from services.journal.port import JournalStore
from tests.support.clock import FakeClock
from tests.support.gateway import memory_stores, running_gateway, until

LEASE = 0.5


class Hiccups:
    """A journal store that is away for some beats."""

    def __init__(self, store: JournalStore) -> None:
        self._store = store
        self.missed = self.beats = 0

    async def beat(self, gateway: str, seconds: float) -> None:
        if self.missed:
            self.missed -= 1
            raise StoreAway("away")
        self.beats += 1
        await self._store.beat(gateway, seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@asynccontextmanager
async def judging() -> AsyncIterator[tuple[Takeover, Hiccups, FakeClock]]:
    """A gateway that has reached the store for the time of a lease."""
    kept, clock = memory_stores(), FakeClock()
    hiccups = Hiccups(kept.journals)
    stores = Stores(kept.keys, kept.sessions, kept.leases, hiccups)  # type: ignore[arg-type]
    async with running_gateway(stores=stores, gateway_lease=LEASE) as endpoint:
        endpoint.deps.clock = clock
        takeover = Takeover(endpoint.deps)
        endpoint.deps.tasks.start(takeover.watch(), "takeover")
        await until(lambda: hiccups.beats > 1)
        clock.advance(LEASE)
        assert takeover.judges
        await beats(hiccups, 2)
        yield takeover, hiccups, clock


async def beats(hiccups: Hiccups, more: int) -> None:
    before = hiccups.beats
    await until(lambda: hiccups.beats >= before + more)


async def test_one_late_reply_of_the_store_delays_no_takeover() -> None:
    async with judging() as (takeover, hiccups, _):
        hiccups.missed = 1
        await until(lambda: not hiccups.missed)
        await beats(hiccups, 1)
        assert takeover.judges


async def test_a_gateway_that_lost_the_store_for_long_gives_nobody_up_until_a_lease_has_passed() -> None:
    async with judging() as (takeover, hiccups, clock):
        hiccups.missed = 1_000
        clock.advance(LEASE / 2)
        await until(lambda: not takeover.judges)
        hiccups.missed = 0
        await beats(hiccups, 2)
        assert not takeover.judges
        clock.advance(LEASE)
        await beats(hiccups, 1)
        assert takeover.judges
