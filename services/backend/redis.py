"""What replicas and their autoscaler write to Redis (cluster/serving: lease.py, ledger.py), and the answer to it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from services.backend.port import Lease
from services.backend.scaling import Change, Demand, Scaling
from services.store.connect import Store, store_errors

REPLICAS = "headrace:replicas"
LEASE = "headrace:lease:"
SCALING = "headrace:scaling:"
HELD = "headrace:held:"
HELD_EXPIRES = 60  # seconds after the last gateway's last word
CHANGES = 10  # of the log that are read


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


class RedisScaling:
    def __init__(self, client: Store) -> None:
        self._client: Any = client

    async def publish(self, gateway: str, at: float, demands: Mapping[str, Demand | None]) -> None:
        async with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for model, demand in demands.items():
                if demand is None:
                    pipe.hdel(HELD + model, gateway)
                    continue
                said = {"held": demand.held, "refused": demand.refused, "at_ms": round(at * 1000)}
                pipe.hset(HELD + model, gateway, json.dumps(said))
                pipe.expire(HELD + model, HELD_EXPIRES)
            await pipe.execute()

    async def read(self, models: Iterable[str]) -> Mapping[str, Scaling]:
        asked = list(models)
        async with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for model in asked:
                pipe.get(SCALING + slug(model))
                pipe.lrange(f"{SCALING}{slug(model)}:log", 0, CHANGES - 1)
            replies = await pipe.execute()
        pairs = zip(asked, replies[::2], replies[1::2], strict=True)
        found = {model: _scaling(value, log) for model, value, log in pairs if value is not None}
        return {model: scaling for model, scaling in found.items() if scaling is not None}


def slug(model: str) -> str:
    """As cluster/serving/names.py has it."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in model)


def _scaling(value: bytes | str, log: Sequence[bytes | str]) -> Scaling | None:
    """None for what this version cannot read."""
    try:
        told = json.loads(value)
        return Scaling(
            desired=int(told["desired"]),
            current=int(told["current"]),
            reason=str(told["reason"]),
            held_because=str(told["held_because"] or ""),
            wanted={str(signal): float(wanted) for signal, wanted in told["wanted"].items()},
            at=told["at_ms"] / 1000,
            changes=tuple(map(_change, log)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _change(value: bytes | str) -> Change:
    told = json.loads(value)
    return Change(int(told["before"]), int(told["after"]), str(told["reason"]), told["at_ms"] / 1000)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def _lease(value: bytes | str) -> Lease | None:
    try:
        fields = json.loads(value)
        return Lease(**{name: fields[name] for name in Lease.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None
