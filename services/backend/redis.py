"""Leases from Redis, where the replicas write them (cluster/serving/lease.py)."""

import json
from collections.abc import Sequence

from redis.asyncio import Redis

from services.backend.port import Lease
from services.store.connect import store_errors
from services.telemetry.logs import log

REPLICAS = "headrace:replicas"
LEASE = "headrace:lease:"


class RedisLeases:
    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self) -> Sequence[Lease]:
        async with store_errors():
            names = sorted(_text(name) for name in await self._client.smembers(REPLICAS))
            values = {name: await self._client.get(LEASE + name) for name in names}
            if gone := [name for name, value in values.items() if value is None]:
                await self._client.srem(REPLICAS, *gone)
        read = [_lease(name, value) for name, value in values.items() if value is not None]
        return [lease for lease in read if lease is not None]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def _lease(name: str, value: bytes | str) -> Lease | None:
    """None for a lease that this version cannot read: one odd replica must not hide the others."""
    try:
        fields = json.loads(value)
        return Lease(**{name: fields[name] for name in Lease.__dataclass_fields__})
    except (ValueError, KeyError, TypeError) as error:
        log.warning("unreadable lease", replica=name, reason=type(error).__name__)
        return None
