"""Sessions in Redis. A session is some keys in one hash slot; a tenant's index is two keys in another.

    headrace:session:{<tenant>:<id>}:head        version, count, bytes, ttl, times, metadata, origin
    headrace:session:{<tenant>:<id>}:messages    list, each of [role, text, the rest if there is any]
    headrace:session:{<tenant>:<id>}:turns       list: which turn added which messages
    headrace:session:{<tenant>:<id>}:operations  turn id to the version that it made
    headrace:session:{<tenant>:<id>}:key         the wrapped data key, if values are encrypted
    headrace:session:{<tenant>:<id>}:summary     of the beginning, if a context policy made one
    headrace:session:{<tenant>:<id>}:writer      the turn that may append, as long as its lease lasts
    headrace:session:{<tenant>:<id>}:waiting     turns after it, by arrival; `asked` has when they last asked
    headrace:sessions:{<tenant>}:places          sorted by creation, for the list
    headrace:sessions:{<tenant>}:expiries        the same members by expiry, for cleaning

The session's keys expire by themselves; the index follows when it is next used.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from services.core.clock import Clock, Ids
from services.core.errors import Internal, StoreAway
from services.core.request import Message
from services.sessions import codec
from services.sessions.port import (
    MAX_MESSAGES,
    MAX_TEXT_BYTES,
    MAX_WAITING,
    PATIENCE,
    Page,
    Part,
    Session,
    SessionTurn,
    Summary,
    absent,
    after,
    busy,
    check_bounds,
    check_id,
    check_page,
    check_part,
    check_summary,
    check_version,
    conflict,
    crowded,
    cut,
    first_turns,
    id_at,
    place,
    total_bytes,
)
from services.sessions.vault import Seal, Vault
from services.store.connect import Store, store_errors

ROOM = Path(__file__).parent
MAX_INDEX = 1 << 31  # no list is as long; the server takes no numbers without end


class Keys(NamedTuple):
    head: str
    messages: str
    turns: str
    operations: str
    key: str
    summary: str
    writer: str
    waiting: str
    asked: str


def _keys(tenant: str, id: str) -> Keys:
    stem = f"headrace:session:{{{tenant}:{id}}}"
    return Keys(*(f"{stem}:{name}" for name in Keys._fields))


def _index(tenant: str) -> list[str]:
    stem = f"headrace:sessions:{{{tenant}}}"
    return [f"{stem}:places", f"{stem}:expiries"]


class RedisSessionStore:
    def __init__(self, client: Store, clock: Clock, ids: Ids, vault: Vault | None = None) -> None:
        # redis-py types a reply as "awaitable or not"; the contract suite is the check.
        self._client: Any = client
        self._clock = clock
        self._ids = ids
        self._vault = vault or Vault()
        self._append, self._note, self._acquire, self._release, self._summarize = (
            self._client.register_script((ROOM / f"{name}.lua").read_text())
            for name in ("append", "index", "acquire", "release", "summarize")
        )

    async def create(
        self,
        tenant: str,
        messages: Sequence[Message],
        ttl: float,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Session:
        text = total_bytes(messages)
        check_bounds(len(messages), text)
        # Whole microseconds, so that the place in the index is the same after a round trip as text.
        now = round(self._clock.now(), 6)
        turn = SessionTurn("", 1, now, 0, len(messages), text)
        id = self._ids.new("session")
        session = Session(id, 1, tuple(messages), now, now + ttl, (turn,), dict(metadata or {}))
        await self._put(tenant, session, round(ttl * 1000))
        return session

    async def get(self, tenant: str, id: str) -> Session:
        return (await self._get(tenant, id))[0]

    async def read(self, tenant: str, id: str, from_version: int = 0, max_turns: int = 0) -> Part:
        check_id(id)
        most, keys, start = check_part(max_turns), _keys(tenant, id), min(max(from_version - 1, 0), MAX_INDEX)
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.head)
            pipe.get(keys.key)
            pipe.hgetall(keys.summary)
            pipe.lrange(keys.turns, start, start + most - 1)
            fields, wrapped, summary, packed = await pipe.execute()
        session, seal = self._opened(tenant, id, fields, wrapped)
        check_version("from_version", from_version, session.version, 1)
        turns = tuple(first_turns([codec.unpack_turn(turn) for turn in packed]))
        session = replace(
            session,
            turns=turns,
            messages=await self._messages(keys, turns, seal),
            summary=codec.unpack_summary(summary, seal),
        )
        return Part(session, after(turns, session.version))

    async def append(
        self,
        tenant: str,
        id: str,
        expected_version: int,
        messages: Sequence[Message],
        *,
        operation: str = "",
        model: str = "",
    ) -> int:
        check_id(id)
        text = total_bytes(messages)
        check_bounds(len(messages), text)
        seal, sealed, first = await self._seal(tenant, id)
        bounds = (expected_version, operation, MAX_MESSAGES, MAX_TEXT_BYTES, text)
        about = (f"{self._clock.now():.6f}", sealed, model, first if sealed else "")
        packed = codec.pack(messages, first, seal)
        async with store_errors():
            reply = await self._append(keys=_keys(tenant, id)[:7], args=(*bounds, *about, *packed))
        _raise_refusal(reply[0])
        version, created, expires = reply[1:]
        # The append has happened: an index that misses this renewal is put right by the next one.
        with suppress(StoreAway):
            await self._index(tenant, place(float(created), id), float(expires))
        return int(version)

    async def fork(self, tenant: str, id: str, at_version: int = 0) -> Session:
        whole, ttl = await self._get(tenant, id)
        at = check_version("at_version", at_version, whole.version, whole.version)
        now = round(self._clock.now(), 6)
        forked = replace(
            cut(whole, at),
            id=self._ids.new("session"),
            created=now,
            expires=now + ttl / 1000,
            forked_from=id,
            forked_at=at,
        )
        await self._put(tenant, forked, ttl)
        return forked

    async def summarize(self, tenant: str, id: str, summary: Summary) -> None:
        check_id(id)
        check_summary(summary, MAX_MESSAGES)
        seal, sealed, _ = await self._seal(tenant, id)
        keys = _keys(tenant, id)
        args = (summary.covers, sealed, codec.pack_summary(summary, seal))
        async with store_errors():
            reply = await self._summarize(keys=[keys.head, keys.summary], args=args)
        if reply[0] == b"covers":
            check_summary(summary, 0)
        _raise_refusal(reply[0])

    async def acquire(self, tenant: str, id: str, turn: str, seconds: float, *, wait: bool = False) -> str:
        check_id(id)
        keys, now = _keys(tenant, id), self._clock.now()
        args = (
            turn,
            max(1, round(seconds * 1000)),
            int(wait),
            f"{now:.6f}",
            f"{now - PATIENCE:.6f}",
            MAX_WAITING,
        )
        async with store_errors():
            reply = await self._acquire(keys=[keys.head, *keys[6:]], args=args)
        _raise_refusal(reply[0])
        return str(reply[1].decode())

    async def release(self, tenant: str, id: str, turn: str) -> None:
        check_id(id)
        async with store_errors():
            await self._release(keys=_keys(tenant, id)[6:], args=[turn])

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
            pipe.delete(keys.key)  # first, and not left to the server's leisure
            pipe.hget(keys.head, "created")
            pipe.delete(*keys)
            _, created, _ = await pipe.execute()
        if created is None:
            raise absent()
        await self._forget(tenant, [place(float(created), id)])

    async def _put(self, tenant: str, session: Session, ttl: int) -> None:
        """Writes a new session whole; `ttl` in milliseconds."""
        keys = _keys(tenant, session.id)
        seal, wrapped = self._vault.begin(tenant, session.id)
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hset(keys.head, mapping=codec.head(session, ttl, seal, sealed=bool(wrapped)))
            pipe.rpush(keys.turns, *map(codec.pack_turn, session.turns))
            if session.messages:
                pipe.rpush(keys.messages, *codec.pack(session.messages, 0, seal))
            if session.summary:
                text = codec.pack_summary(session.summary, seal)
                pipe.hset(keys.summary, mapping={"covers": session.summary.covers, "text": text})
            if wrapped:
                pipe.set(keys.key, wrapped)
            for key in keys:
                pipe.pexpire(key, ttl)
            await pipe.execute()
        await self._index(tenant, place(session.created, session.id), session.expires)

    async def _get(self, tenant: str, id: str) -> tuple[Session, int]:
        """The whole session, and its time to live in milliseconds."""
        check_id(id)
        keys = _keys(tenant, id)
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.head)
            pipe.get(keys.key)
            pipe.hgetall(keys.summary)
            pipe.lrange(keys.turns, 0, -1)
            pipe.lrange(keys.messages, 0, -1)
            fields, wrapped, summary, turns, packed = await pipe.execute()
        session, seal = self._opened(tenant, id, fields, wrapped)
        whole = replace(
            session,
            turns=tuple(map(codec.unpack_turn, turns)),
            messages=codec.unpack(packed, 0, seal),
            summary=codec.unpack_summary(summary, seal),
        )
        return whole, int(fields[b"ttl"])

    def _opened(
        self, tenant: str, id: str, fields: codec.Fields, wrapped: bytes | None
    ) -> tuple[Session, Seal]:
        if not fields or (fields[b"sealed"] == b"1" and not wrapped):
            raise absent()
        seal = self._vault.open(tenant, id, wrapped or b"")
        return codec.unpack_head(id, fields, seal), seal

    async def _messages(self, keys: Keys, turns: Sequence[SessionTurn], seal: Seal) -> tuple[Message, ...]:
        """What these consecutive turns added. What was there once changes only by going altogether."""
        first, end = turns[0].first, turns[-1].first + turns[-1].count
        if first == end:
            return ()
        async with store_errors():
            packed = await self._client.lrange(keys.messages, first, end - 1)
        if len(packed) < end - first:
            raise absent()
        return codec.unpack(packed, first, seal)

    async def _seal(self, tenant: str, id: str) -> tuple[Seal, int, int]:
        """The seal for new values, whether it encrypts, and the number of messages if it does."""
        if not self._vault.seals:
            return self._vault.open(tenant, id, b""), 0, 0
        keys = _keys(tenant, id)
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            pipe.hmget(keys.head, "sealed", "count")
            pipe.get(keys.key)
            (sealed, count), wrapped = await pipe.execute()
        if sealed is None or (sealed == b"1" and not wrapped):
            raise absent()
        return self._vault.open(tenant, id, wrapped or b""), int(sealed), int(count)

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
                keys = _keys(tenant, id_at(place))
                pipe.hgetall(keys.head)
                pipe.get(keys.key)
            replies = await pipe.execute()
        heads = list(zip(places, replies[::2], replies[1::2], strict=True))
        await self._forget(tenant, [place for place, fields, _ in heads if not fields])
        living = (each for each in heads if each[1] and (each[2] or each[1][b"sealed"] == b"0"))
        return [(p, self._opened(tenant, id_at(p), fields, key)[0]) for p, fields, key in living]

    async def _forget(self, tenant: str, places: Sequence[str]) -> None:
        if not places:
            return
        async with store_errors(), self._client.pipeline(transaction=True) as pipe:
            for key in _index(tenant):
                pipe.zrem(key, *places)
            await pipe.execute()


def _raise_refusal(reply: bytes) -> None:
    if reply == b"sealed":
        raise Internal("the session is encrypted, and this gateway has no master key")
    refusals = {b"absent": absent, b"conflict": conflict, b"busy": busy, b"full": crowded}
    if refusal := refusals.get(reply):
        raise refusal()
    if reply == b"messages":
        check_bounds(MAX_MESSAGES + 1, 0)
    if reply == b"bytes":
        check_bounds(0, MAX_TEXT_BYTES + 1)
