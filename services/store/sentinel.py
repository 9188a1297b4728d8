"""The master that sentinels name, found anew for every connection."""

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError, RedisError


class Sentinels(Sentinel):
    """Asks all sentinels at once: the answer does not wait for those that are frozen. `budget`: seconds."""

    budget: float
    _asking: asyncio.Task[tuple[str, int]] | None = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Connections that begin together share one question. Raises MasterNotFoundError, a ConnectionError, if
        no sentinel knows a master."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(service_name), name="sentinels")
            # Read, so that an answer that nobody waited for any more is not reported as lost.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._asking)

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await super().aclose()

    async def _ask(self, name: str) -> tuple[str, int]:
        asked = [asyncio.ensure_future(s.sentinel_get_master_addr_by_name(name)) for s in self.sentinels]
        try:
            for answer in asyncio.as_completed(asked, timeout=self.budget):
                try:
                    found: Any = await answer
                    if found:
                        host, port = found
                        return host.decode() if isinstance(host, bytes) else host, int(port)
                except (RedisError, OSError):
                    continue
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise MasterNotFoundError(f"no sentinel knows a master {name!r}")


class _Verified:
    """A sentinel may be late: what it names must say itself that it is the master."""

    async def connect_to(self: Any, address: tuple[str, int]) -> None:
        await super().connect_to(address)  # type: ignore[misc]
        await self.send_command("ROLE")
        role = (await self.read_response())[0]
        if role not in (b"master", "master"):
            await self.disconnect()
            raise ConnectionError("the sentinels name a server that is no master")


class MasterConnection(_Verified, SentinelManagedConnection):
    pass


class MasterTlsConnection(_Verified, SentinelManagedSSLConnection):
    pass


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master. One that finds it moved drops the idle ones to the old place."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def pool(
    places: Iterable[tuple[str, int]],
    name: str,
    *,
    sentinels: dict[str, Any],
    master: dict[str, Any],
    tls: bool,
    budget: float,
) -> MasterPool:
    """`sentinels` and `master`: redis-py's options of the connections to either."""
    manager: Any = Sentinels(list(places), sentinel_kwargs=sentinels)  # type: ignore[no-untyped-call]
    manager.budget = budget
    kind = MasterTlsConnection if tls else MasterConnection
    return MasterPool(name, manager, connection_class=kind, **master)  # type: ignore[no-untyped-call]
