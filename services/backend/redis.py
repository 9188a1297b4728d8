"""Leases from Redis, where the replicas write them (cluster/serving/lease.py)."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from services.backend.port import Lease
from services.store.connect import Store, store_errors

REPLICAS = "headrace:replicas"
LEASE = "headrace:lease:"


class RedisLeases:
    """`on_unreadable(replica)` hears of a lease that this version cannot read: it must not hide the others."""

    def __init__(self, client: Store, on_unreadable: Callable[[str], None]) -> None:
        # redis-py types a reply as "awaitable or not"; the adapter's tests are the check.
        self._client: Any = client
        self._on_unreadable = on_unreadable

    async def read(self) -> Sequence[Lease]:
        async with store_errors():
            names = sorted(_text(name) for name in await self._client.smembers(REPLICAS))
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(LEASE + name)
                values = dict(zip(names, await pipe.execute(), strict=True))
            if gone := [name for name, value in values.items() if value is None]:
                await self._client.srem(REPLICAS, *gone)
        found = {name: _lease(value) for name, value in values.items() if value is not None}
        for name in (name for name, lease in found.items() if lease is None):
            self._on_unreadable(name)
        return [lease for lease in found.values() if lease is not None]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def _lease(value: bytes | str) -> Lease | None:
    try:
        fields = json.loads(value)
        return Lease(**{name: fields[name] for name in Lease.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None
