"""The adapters that a contract suite runs on, and a way to let time pass for both."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from services.sessions.memory import MemorySessionStore
from services.sessions.port import SessionStore
from services.sessions.redis import RedisSessionStore
from services.sessions.vault import Vault
from services.tenancy.keys import KeyStore
from services.tenancy.memory import MemoryKeyStore
from services.tenancy.redis import RedisKeyStore
from tests.support.clock import CountingIds, FakeClock

ADAPTERS = ("memory", "redis", "sealed")
MASTER = b"m" * 32


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


def redis_stores(client: Redis, master: bytes = b"") -> Stores:
    """`master`: the key under which sessions are encrypted; empty leaves them plain."""
    clock = FakeClock()

    async def pass_time(seconds: float) -> None:
        """The server's clock cannot be moved, so every key comes nearer to its end instead."""
        clock.advance(seconds)
        for key in [key async for key in client.scan_iter()]:
            if (left := await client.pttl(key)) > 0:
                await client.pexpire(key, max(0, left - round(seconds * 1000)))

    sessions = RedisSessionStore(client, clock, CountingIds(), Vault(master))
    return Stores(RedisKeyStore(client), sessions, clock, pass_time)
