"""The adapters that a contract suite runs on, and a way to let time pass for both."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.sessions.memory import MemorySessionStore
from services.sessions.port import SessionStore
from services.sessions.redis import RedisSessionStore
from services.store.connect import Store
from services.tenancy.keys import KeyStore
from services.tenancy.memory import MemoryKeyStore
from services.tenancy.redis import RedisKeyStore
from tests.support.clock import CountingIds, FakeClock

ADAPTERS = ("memory", "redis", "cluster")


@dataclass(frozen=True, slots=True)
class Stores:
    keys: KeyStore
    sessions: SessionStore
    clock: FakeClock
    pass_time: Callable[[float], Awaitable[None]]


def memory_stores() -> Stores:
    clock = FakeClock()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    return Stores(MemoryKeyStore(), MemorySessionStore(clock, CountingIds()), clock, pass_time)


def redis_stores(client: Store) -> Stores:
    clock = FakeClock()

    async def pass_time(seconds: float) -> None:
        """The server's clock cannot be moved, so every key comes nearer to its end instead."""
        clock.advance(seconds)
        for key in [key async for key in client.scan_iter()]:
            if (left := await client.pttl(key)) > 0:
                await client.pexpire(key, max(0, left - round(seconds * 1000)))

    return Stores(RedisKeyStore(client), RedisSessionStore(client, clock, CountingIds()), clock, pass_time)
