"""Keys in Redis: one hash per key, one set of all ids."""

from typing import Any

from services.core.request import Scope
from services.store.connect import Store, store_errors
from services.tenancy.keys import KeyRecord

INDEX = "headrace:keys"


def _key(id: str) -> str:
    return f"headrace:key:{id}"


class RedisKeyStore:
    def __init__(self, client: Store) -> None:
        # redis-py types a reply as "awaitable or not"; the adapter's tests are the check.
        self._client: Any = client

    async def put(self, record: KeyRecord) -> None:
        async with store_errors():
            # The index first: an id without a hash is skipped, a key nobody can list is not revoked.
            await self._client.sadd(INDEX, record.id)
            await self._client.hset(_key(record.id), mapping=_fields(record))

    async def get(self, id: str) -> KeyRecord | None:
        async with store_errors():
            return _record(await self._client.hgetall(_key(id)))

    async def list(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        async with store_errors():
            ids = await self._client.smembers(INDEX)
            async with self._client.pipeline(transaction=False) as pipe:
                for id in ids:
                    pipe.hgetall(_key(id.decode()))
                replies = await pipe.execute()
        records = [r for reply in replies if (r := _record(reply)) and tenant in (None, r.tenant)]
        return tuple(sorted(records, key=lambda r: (r.created, r.id)))

    async def revoke(self, id: str) -> bool:
        async with store_errors():
            if not await self._client.exists(_key(id)):
                return False
            await self._client.hset(_key(id), "revoked", "1")
            return True


def _fields(record: KeyRecord) -> dict[str, str]:
    return {
        "id": record.id,
        "digest": record.digest,
        "tenant": record.tenant,
        "name": record.name,
        "env": record.env,
        "created": repr(record.created),
        "revoked": "1" if record.revoked else "",
        "expires": "" if record.expires is None else repr(record.expires),
        "scopes": " ".join(sorted(record.scopes)),
    }


def _record(reply: dict[bytes, bytes]) -> KeyRecord | None:
    fields = {name.decode(): value.decode() for name, value in reply.items()}
    if not fields:
        return None
    return KeyRecord(
        id=fields["id"],
        digest=fields["digest"],
        tenant=fields["tenant"],
        name=fields["name"],
        env=fields["env"],
        created=float(fields["created"]),
        revoked=bool(fields["revoked"]),
        expires=float(fields["expires"]) if fields["expires"] else None,
        scopes=frozenset(scope for scope in Scope if scope in fields.get("scopes", "").split()),
    )
