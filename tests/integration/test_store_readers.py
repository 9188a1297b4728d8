"""Very many readers of other gateways' turns share the store with those who write."""

from contextlib import AsyncExitStack

from services.core.clock import SystemClock
from services.core.events import Started
from services.core.tasks import Tasks
from services.journal.mirror import Mirrors
from services.journal.port import Batch, Record
from services.journal.redis import RedisJournalStore
from services.store.cipher import Plain
from services.store.connect import Store
from tests.support.gateway import until
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401

READERS = 500


class Counting(RedisJournalStore):
    reads = asked = most = 0

    async def read(self, turn: str, tenant: str, after: int) -> object:  # type: ignore[override]
        self.reads, self.asked = self.reads + 1, self.asked + 1
        self.most = max(self.most, self.asked)
        try:
            return await super().read(turn, tenant, after)
        finally:
            self.asked -= 1


async def test_readers_do_not_take_the_connections_from_each_other(valkey_client: Store) -> None:  # noqa: F811
    store, crashes = Counting(valkey_client, lambda tenant, turn: Plain()), list[str]()
    tasks = Tasks(lambda name, error: crashes.append(repr(error)))
    mirrors = Mirrors(store, SystemClock(), tasks.start)
    turns = [f"turn_{i:032x}" for i in range(READERS)]
    async with AsyncExitStack() as stack:
        for turn in turns:
            await store.create(Record(turn, "acme", "one", 0, b"", 600.0, 600.0))
            await store.append([Batch(turn, "acme", 0, 1, [Started(turn, "m", 1)], False, 60.0)])
            await stack.enter_async_context(mirrors.follow(turn, "acme"))
        await until(lambda: store.reads >= 6 * READERS, 60)
        assert 1 < store.most <= 32 and not crashes
        assert not any(mirror.journal.left for mirror in mirrors._all.values())
        assert len(mirrors._all) == READERS
    await tasks.close()
