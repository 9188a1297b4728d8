"""Many readers of one turn at another gateway."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.core.errors import Cancelled, NotFound
from services.core.events import Delta, Event, Failed
from services.core.tasks import Tasks
from services.journal.memory_store import MemoryJournalStore
from services.journal.mirror import Mirrors
from services.journal.port import Batch, Page, Record
from tests.support.clock import FakeClock

TURN = "turn_" + "0" * 32


class Gated:
    """A store whose reads wait for the gate, and are counted."""

    def __init__(self, store: MemoryJournalStore) -> None:
        self._store = store
        self.gate, self.reads = asyncio.Event(), 0

    async def read(self, turn: str, tenant: str, after: int) -> Sequence[Page]:
        self.reads += 1
        await self.gate.wait()
        return await self._store.read(turn, tenant, after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def gated(*events: Event, ended: bool) -> tuple[Mirrors, Gated, Tasks]:
    clock, tasks = FakeClock(), Tasks(lambda name, error: None)
    store = MemoryJournalStore(clock)
    await store.create(Record(TURN, "acme", "gateway", 0, b"", 60.0, 60.0))
    await store.append([Batch(TURN, "acme", 0, 1, events, ended, 60.0)])
    held = Gated(store)
    return Mirrors(held, clock, tasks.start), held, tasks  # type: ignore[arg-type]


async def look(mirrors: Mirrors, tenant: str = "acme") -> int:
    """Comes, sees and leaves, as GetTurn does."""
    async with mirrors.follow(TURN, tenant) as journal:
        return len(journal)


@pytest.mark.parametrize("ended", [True, False])
async def test_many_that_ask_for_a_turn_at_once_read_the_store_once(ended: bool) -> None:
    last = (Failed(Cancelled("x")),) if ended else ()
    mirrors, store, tasks = await gated(Delta("a", [1]), *last, ended=ended)
    looks = [asyncio.create_task(look(mirrors)) for _ in range(50)]
    while not store.reads:
        await asyncio.sleep(0)
    looks[0].cancel()  # who began it may leave
    stranger = asyncio.create_task(look(mirrors, "mallory"))
    store.gate.set()
    assert set(await asyncio.gather(*looks[1:])) == {1 + ended}
    with pytest.raises(NotFound):
        await stranger
    assert store.reads <= 2
    await tasks.close()
