"""The adapters that a contract suite runs on, and a way to let time pass for both."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from services.journal.memory_store import MemoryJournalStore
from services.journal.port import JournalStore
from services.journal.redis import RedisJournalStore
from services.sessions.memory import MemorySessionStore
from services.sessions.port import SessionStore
from services.sessions.redis import RedisSessionStore
from services.store.cipher import AesGcm, derive
from services.store.connect import Store
from services.tenancy.keys import KeyStore
from services.tenancy.memory import MemoryKeyStore
from services.tenancy.redis import RedisKeyStore
from tests.support.clock import CountingIds, FakeClock

ADAPTERS = ("memory", "redis", "cluster", "restricted")


@dataclass(frozen=True, slots=True)
class Stores:
    keys: KeyStore
    sessions: SessionStore
    journals: JournalStore
    clock: FakeClock
    pass_time: Callable[[float], Awaitable[None]]


def memory_stores() -> Stores:
    clock = FakeClock()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    return Stores(
        MemoryKeyStore(),
        MemorySessionStore(clock, CountingIds()),
        MemoryJournalStore(clock),
        clock,
        pass_time,
    )


def redis_stores(client: Store, admin: Store | None = None) -> Stores:
    """`admin`: a client that may look at all keys, where `client` may not."""
    clock = FakeClock()

    async def pass_time(seconds: float) -> None:
        """The server's clock cannot be moved, so every key comes nearer to its end instead."""
        clock.advance(seconds)
        server: Any = admin or client
        for key in [key async for key in server.scan_iter()]:
            if (left := await server.pttl(key)) > 0:
                await server.pexpire(key, max(0, left - round(seconds * 1000)))

    return Stores(
        RedisKeyStore(client),
        RedisSessionStore(client, clock, CountingIds()),
        RedisJournalStore(client, lambda tenant, turn: AesGcm(derive(bytes(32), "journal", tenant, turn))),
        clock,
        pass_time,
    )
