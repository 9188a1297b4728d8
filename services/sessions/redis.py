"""Sessions in Redis. A session is two keys in one hash slot; a tenant's index is two keys in another.

    headrace:session:{<tenant>:<id>}:head       version, operation, count, bytes, ttl, created, expires
    headrace:session:{<tenant>:<id>}:messages   list of [role, text, the rest if there is any] as JSON
    headrace:sessions:{<tenant>}:places         sorted by creation, for the list
    headrace:sessions:{<tenant>}:expiries       the same members by expiry, for cleaning

The session's keys expire by themselves; the index follows when it is next used.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.core.clock import Clock, Ids
from services.core.errors import StoreAway
from services.core.request import Message, Role, ToolCall
from services.sessions.port import (
    MAX_MESSAGES,
    MAX_TEXT_BYTES,
    Page,
    Session,
    absent,
    check_bounds,
    check_id,
    check_page,
    conflict,
    id_at,
    place,
    total_bytes,
)
from services.store.connect import Store, store_errors

ROOM = Path(__file__).parent


def _keys(tenant: str, id: str) -> list[str]:
    stem = f"headrace:session:{{{tenant}:{id}}}"
    return [f"{stem}:head", f"{stem}:messages"]


def _index(tenant: str) -> list[str]:
    stem = f"headrace:sessions:{{{tenant}}}"
    return [f"{stem}:places", f"{stem}:expiries"]


class RedisSessionStore:
    def __init__(self, client: Store, clock: Clock, ids: Ids) -> None:
        # redis-py types a reply as "awaitable or not"; the contract suite is the check.
        self._client: Any = client
        self._clock = clock
        self._ids = ids
        self._append = self._client.register_script((ROOM / "append.lua").read_text())
        self._note = self._client.register_script((ROOM / "index.lua").read_text())

    async def create(self, tenant: str, messages: Sequence[Message], ttl: float) -> Session:
        text = total_bytes(messages)
        check_bounds(len(messages), text)
        # Whole microseconds, so that the place in the index is the same after a round trip as text.
        now, ms = round(self._clock.now(), 6), round(ttl * 1000)
        session = Session(self._ids.new("session"), 1, tuple(messages), now, now + ttl)
        head, list_ = _keys(tenant, session.id)
        fields = {"version": 1, "count": len(messages), "bytes": text, "ttl": ms, "operation": ""}
        times = {"created": f"{now:.6f}", "expires": f"{session.expires:.6f}"}
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hset(head, mapping=fields | times)
            pipe.pexpire(head, ms)
            if messages:
                pipe.rpush(list_, *map(_pack, messages))
                pipe.pexpire(list_, ms)
            await pipe.execute()
        await self._index(tenant, place(now, session.id), session.expires)
        return session

    async def get(self, tenant: str, id: str) -> Session:
        check_id(id)
        head, list_ = _keys(tenant, id)
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(head)
            pipe.lrange(list_, 0, -1)
            fields, packed = await pipe.execute()
        if not fields:
            raise absent()
        return _session(id, fields, tuple(map(_unpack, packed)))

    async def append(
        self,
        tenant: str,
        id: str,
        expected_version: int,
        messages: Sequence[Message],
        *,
        operation: str = "",
    ) -> int:
        check_id(id)
        text = total_bytes(messages)
        check_bounds(len(messages), text)
        args: tuple[int | str, ...] = (expected_version, operation, MAX_MESSAGES, MAX_TEXT_BYTES, text)
        args += (f"{self._clock.now():.6f}", *map(_pack, messages))
        async with store_errors():
            reply = await self._append(keys=_keys(tenant, id), args=args)
        _raise_refusal(reply[0])
        version, created, expires = reply[1:]
        # The append has happened: an index that misses this renewal is put right by the next one.
        with suppress(StoreAway):
            await self._index(tenant, place(float(created), id), float(expires))
        return int(version)

    async def list(self, tenant: str, page_size: int = 0, page_token: str = "") -> Page:
        size = check_page(page_size, page_token)
        await self._index(tenant)
        found: list[tuple[str, Session]] = []
        after, more = page_token, True
        while more and len(found) <= size:
            places = await self._places(tenant, after, size + 1)
            found += await self._heads(tenant, places)
            more = len(places) > size
            after = places[-1] if places else after
        token = found[size - 1][0] if len(found) > size else ""
        return Page(tuple(session for _, session in found[:size]), token)

    async def delete(self, tenant: str, id: str) -> None:
        check_id(id)
        keys = _keys(tenant, id)
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hget(keys[0], "created")
            pipe.delete(*keys)
            created, _ = await pipe.execute()
        if created is None:
            raise absent()
        await self._forget(tenant, [place(float(created), id)])

    async def _index(self, tenant: str, place: str = "", expires: float = 0.0) -> None:
        now = self._clock.now()
        longest = round(max(expires - now, 0.0) * 1000) + 1
        noted = [place, f"{expires:.6f}"] if place else []
        async with store_errors():
            await self._note(keys=_index(tenant), args=[f"{now:.6f}", longest, *noted])

    async def _places(self, tenant: str, after: str, count: int) -> Sequence[str]:
        start = f"({after}" if after else "+"
        async with store_errors():
            members = await self._client.zrevrangebylex(_index(tenant)[0], start, "-", start=0, num=count)
        return [member.decode() for member in members]

    async def _heads(self, tenant: str, places: Sequence[str]) -> Sequence[tuple[str, Session]]:
        """The living sessions at these places; a place whose session is gone is forgotten."""
        async with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for place in places:
                pipe.hgetall(_keys(tenant, id_at(place))[0])
            heads = await pipe.execute()
        await self._forget(tenant, [p for p, fields in zip(places, heads, strict=True) if not fields])
        pairs = zip(places, heads, strict=True)
        return [(p, _session(id_at(p), fields, ())) for p, fields in pairs if fields]

    async def _forget(self, tenant: str, places: Sequence[str]) -> None:
        if not places:
            return
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            for key in _index(tenant):
                pipe.zrem(key, *places)
            await pipe.execute()


def _raise_refusal(reply: bytes) -> None:
    if reply == b"absent":
        raise absent()
    if reply == b"conflict":
        raise conflict()
    if reply == b"messages":
        check_bounds(MAX_MESSAGES + 1, 0)
    if reply == b"bytes":
        check_bounds(0, MAX_TEXT_BYTES + 1)


def _pack(message: Message) -> str:
    calls = [[call.id, call.name, call.arguments] for call in message.calls]
    fields = {"reasoning": message.reasoning, "calls": calls, "call_id": message.call_id}
    more = {name: value for name, value in fields.items() if value}
    packed = [message.role, message.text, more] if more else [message.role, message.text]
    return json.dumps(packed, ensure_ascii=False, separators=(",", ":"))


def _unpack(packed: bytes) -> Message:
    role, text, *rest = json.loads(packed)
    more = rest[0] if rest else {}
    calls = tuple(ToolCall(*call) for call in more.get("calls", ()))
    return Message(Role(role), text, more.get("reasoning", ""), calls, more.get("call_id", ""))


def _session(id: str, fields: dict[bytes, bytes], messages: tuple[Message, ...]) -> Session:
    return Session(
        id=id,
        version=int(fields[b"version"]),
        messages=messages,
        created=float(fields[b"created"]),
        expires=float(fields[b"expires"]),
    )
