"""Turns in Redis. X is the last hex digit of the turn's id; what one script touches is in one hash slot.

headrace:{jX}:turn:<id>               hash: gateway, epoch, seq, deadline, request, ...
headrace:{jX}:events:<id>             stream: entry <seq of its last event>-0 holds the events of one flush
headrace:{jX}:running                 hash: turn -> gateway
headrace:{jX}:claim:<tenant>:<hash>   turn id and request digest of an idempotency key
headrace:gateways                     set of gateways; headrace:gateway:<id> exists while one lives
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from services.core.errors import StoreAway
from services.journal import codec
from services.journal.port import (
    Batch,
    Claim,
    Entry,
    Page,
    Record,
    Reply,
    Stored,
    Verdict,
    hashed,
    one_request,
)
from services.store.cipher import Cipher, about
from services.store.cluster import Cluster
from services.store.confirm import confirmed_script
from services.store.connect import AWAY_TEXT, Store, store_errors

ROOM = Path(__file__).parent
DIGITS = "0123456789abcdef"
VERDICTS = (Verdict.KEPT, Verdict.CANCELLED, Verdict.REALIGN, Verdict.FENCED, Verdict.GONE)
GATEWAYS = "headrace:gateways"
READ = 512  # entries of one call: thousands of them would outlast its budget and hold up the event loop
SCRIPTS = ("create", "append", "take", "mark")


class RedisJournalStore:
    """`ciphers(tenant, turn)` gives each turn's; `size` of a reply counts sealed bytes."""

    def __init__(self, client: Store, ciphers: Callable[[str, str], Cipher]) -> None:
        # redis-py types a reply as "awaitable or not"; the contract suite is the check.
        self._client: Any = client
        self._cipher = ciphers
        self._spread = isinstance(client, Cluster)  # a script may touch one slot only
        self._scripts = {name: self._client.register_script(_text(name)) for name in SCRIPTS}

    async def _run(self, name: str, keys: Sequence[bytes], *args: Any) -> Any:
        async with store_errors():
            return await self._scripts[name](keys=keys, args=args)

    async def create(self, record: Record) -> str:
        claim, keys = record.claim, _keys(record.turn)
        life = round((record.seconds + record.keep) * 1000)
        fields = {
            "epoch": record.epoch,
            "tenant": record.tenant,
            "keep": record.keep,
            "request": self._cipher(record.tenant, record.turn).seal(
                record.request, about(record.turn, "request")
            ),
        }
        await self._introduce(record.gateway)
        held = await self._run(
            "create",
            [keys[0], keys[2], *([] if claim is None else [_claim(record.turn, record.tenant, claim)])],
            *(record.turn, record.gateway, round(record.seconds * 1000), life),
            *(("", 0, "") if claim is None else (claim.digest, round(claim.keep * 1000), claim.instead_of)),
            *(part for field in fields.items() for part in field),
        )
        return _holder(held, claim) or record.turn

    async def claimed(self, tenant: str, claim: Claim) -> str:
        key = _claim(hashed(tenant, claim), tenant, claim)
        async with store_errors():
            return _holder(await self._client.get(key), claim)

    async def append(self, batches: Sequence[Batch]) -> Sequence[Reply]:
        if not self._spread:
            return await self._append_all(batches)
        groups: dict[str, list[int]] = defaultdict(list)
        for i, batch in enumerate(batches):
            groups[batch.turn[-1]].append(i)
        parts = [[batches[i] for i in group] for group in groups.values()]
        several = await asyncio.gather(*map(self._append_part, parts))
        if all(reply.verdict is Verdict.AWAY for replies in several for reply in replies):
            raise StoreAway(AWAY_TEXT)
        replies = dict(zip(chain(*groups.values()), chain(*several), strict=True))
        return [replies[i] for i in range(len(batches))]

    async def _append_part(self, batches: Sequence[Batch]) -> list[Reply]:
        try:
            return await self._append_all(batches)
        except StoreAway:
            return [Reply(Verdict.AWAY, 0, 0, math.inf)] * len(batches)

    async def _append_all(self, batches: Sequence[Batch]) -> list[Reply]:
        keys: list[bytes] = []
        args: list[bytes] = []  # redis-py takes bytes as they are, in a third of the time of text and numbers
        for batch in batches:
            keys += _keys(batch.turn)
            last = batch.first + len(batch.events) - 1
            sealed = self._sealed(batch) if batch.events else b""
            keep = b"%d" % round(batch.keep * 1000) if batch.ended else b""
            args += (
                batch.turn.encode(),
                b"%d" % batch.epoch,
                b"%d" % batch.first,
                b"%d" % last,
                sealed,
                keep,
            )
        flat = await self._run("append", keys, *args)
        return [
            Reply(
                VERDICTS[flat[i]],
                flat[i + 1],
                flat[i + 2],
                flat[i + 3] / 1000 if flat[i + 3] >= 0 else math.inf,
            )
            for i in range(0, len(flat), 4)
        ]

    def _sealed(self, batch: Batch) -> bytes:
        last = batch.first + len(batch.events) - 1
        return self._cipher(batch.tenant, batch.turn).seal(
            codec.encode(batch.events), about(batch.turn, last)
        )

    async def find(self, turn: str) -> Stored | None:
        return self._stored(turn, await self._run("take", _keys(turn)[::2], turn))

    async def take(self, turn: str, owner: str, gateway: str, least: int = 0) -> Stored | None:
        await self._introduce(gateway)
        return self._stored(turn, await self._run("take", _keys(turn)[::2], turn, owner, gateway, least))

    async def _introduce(self, gateway: str) -> None:
        """Comes first, so that no turn is one of a gateway that nobody looks for."""
        async with store_errors():
            await self._client.sadd(GATEWAYS, gateway)

    async def read(self, turn: str, tenant: str, after: int) -> Sequence[Page]:
        pages: list[Page] = []
        while True:
            last = pages[-1].entries[-1].seq if pages else after
            async with store_errors():
                found = await self._client.xrange(_keys(turn)[1], f"({last}-0", "+", count=READ)
            pages += [
                self._page(turn, tenant, int(id.partition(b"-")[0]), fields, after) for id, fields in found
            ]
            if len(found) < READ:
                return pages

    def _page(self, turn: str, tenant: str, last: int, fields: dict[bytes, bytes], after: int) -> Page:
        events = codec.decode(self._cipher(tenant, turn).open(fields[b"b"], about(turn, last)))
        first = last - len(events) + 1
        entries = [Entry(seq, event) for seq, event in enumerate(events, first) if seq > after]
        return Page(int(fields[b"e"]), entries)

    async def watch(self, turn: str) -> None:
        await self._run("mark", _keys(turn)[:1], "watched")

    async def cancel(self, turn: str) -> None:
        await self._run("mark", _keys(turn)[:1], "cancelled")

    async def confirm(self, turn: str, seq: int) -> bool:
        """A write of its own, after all others: a replica that has it has them."""
        async with store_errors():
            mark, keys = self._scripts["mark"], _keys(turn)[:1]
            at, kept = await confirmed_script(self._client, mark, keys, ["durable"])
        return kept and at >= seq

    async def beat(self, gateway: str, seconds: float) -> None:
        key = f"headrace:gateway:{gateway}"
        async with store_errors():
            if seconds:
                await self._client.sadd(GATEWAYS, gateway)
                await self._client.set(key, 1, px=round(seconds * 1000))
            else:
                await self._client.delete(key)

    async def lapsed(self) -> Sequence[str]:
        async with store_errors():
            known = sorted(await self._client.smembers(GATEWAYS))
            lives = await asyncio.gather(
                *(self._client.exists(b"headrace:gateway:" + name) for name in known)
            )
        return [name.decode() for name, alive in zip(known, lives, strict=True) if not alive]

    async def orphans(self, gateway: str) -> Sequence[str]:
        async with store_errors():
            shards = await asyncio.gather(*(self._client.hgetall(_running(digit)) for digit in DIGITS))
            turns = [
                turn.decode()
                for shard in shards
                for turn, owner in shard.items()
                if owner == gateway.encode()
            ]
            if not turns:
                await self._client.srem(GATEWAYS, gateway)
        return turns

    def _stored(self, turn: str, reply: Sequence[Any]) -> Stored | None:
        if not reply:
            return None
        left, *flat = reply
        head = dict(zip(flat[::2], flat[1::2], strict=True))
        tenant = head[b"tenant"].decode()
        record = Record(
            turn=turn,
            tenant=tenant,
            gateway=head[b"gateway"].decode(),
            epoch=int(head[b"epoch"]),
            request=self._cipher(tenant, turn).open(head[b"request"], about(turn, "request")),
            seconds=left / 1000,
            keep=float(head[b"keep"]),
        )
        return Stored(record, int(head[b"seq"]), b"ended" in head, b"cancelled" in head)


@lru_cache(4096)
def _keys(turn: str) -> tuple[bytes, bytes, bytes]:
    stem = f"headrace:{{j{turn[-1]}}}"
    return f"{stem}:turn:{turn}".encode(), f"{stem}:events:{turn}".encode(), f"{stem}:running".encode()


def _running(digit: str) -> str:
    return f"headrace:{{j{digit}}}:running"


def _claim(place: str, tenant: str, claim: Claim) -> bytes:
    return f"headrace:{{j{place[-1]}}}:claim:{tenant}:{hashed(tenant, claim)}".encode()


def _holder(held: bytes | None, claim: Claim | None) -> str:
    """The turn that has the key, "" if none has. Raises Precondition."""
    if not held or claim is None:
        return ""
    turn, _, digest = held.decode().partition(" ")
    one_request(digest, claim)
    return turn


def _text(script: str) -> str:
    return (ROOM / f"{script}.lua").read_text()
