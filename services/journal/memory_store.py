"""Turns in this process: for tests, simulations, and one gateway without Redis. Shared by who shares the object."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.core.clock import Clock
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
    one_request,
)


@dataclass(slots=True)
class Kept:
    record: Record
    deadline: float
    expires: float
    pages: list[tuple[int, int, bytes]] = field(default_factory=list)  # epoch, seq of the last event, events
    seq: int = 0
    size: int = 0
    ended: bool = False
    before: str = ""  # the gateway that had it before
    cancelled: bool = False
    watched: float = -math.inf


class MemoryJournalStore:
    """Events go through bytes as in any other store, so that no reader can change what was written."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: dict[str, Kept] = {}
        self._claims: dict[tuple[str, str], tuple[str, str, float]] = {}
        self._gateways: dict[str, float] = {}

    @property
    def _now(self) -> float:
        return self._clock.monotonic()

    async def create(self, record: Record) -> str:
        if (claim := record.claim) is not None:
            if (holder := await self.claimed(record.tenant, claim)) not in (
                "",
                record.turn,
                claim.instead_of,
            ):
                return holder
            ends = self._now + claim.keep
            self._claims[record.tenant, claim.key] = record.turn, claim.digest, ends
        self._gateways.setdefault(record.gateway, self._now)
        if self._kept(record.turn) is None:
            deadline = self._now + record.seconds
            self._turns[record.turn] = Kept(record, deadline, deadline + record.keep)
        return record.turn

    async def claimed(self, tenant: str, claim: Claim) -> str:
        turn, digest, ends = self._claims.get((tenant, claim.key), ("", "", 0.0))
        if not turn or ends <= self._now:
            return ""
        one_request(digest, claim)
        return turn

    async def append(self, batches: Sequence[Batch]) -> Sequence[Reply]:
        return [self._append(batch) for batch in batches]

    def _append(self, batch: Batch) -> Reply:
        kept = self._kept(batch.turn)
        if kept is None:
            return Reply(Verdict.GONE, 0, 0, math.inf)
        verdict, last = Verdict.KEPT, batch.first + len(batch.events) - 1
        if kept.record.epoch != batch.epoch:
            verdict = Verdict.FENCED
        elif last > kept.seq and batch.first != kept.seq + 1:
            verdict = Verdict.REALIGN
        elif last > kept.seq:
            self._keep(kept, batch, last)
        if verdict is Verdict.KEPT and kept.cancelled:
            verdict = Verdict.CANCELLED
        return Reply(verdict, kept.seq, kept.size, self._now - kept.watched)

    def _keep(self, kept: Kept, batch: Batch, last: int) -> None:
        data = codec.encode(batch.events)
        kept.pages.append((batch.epoch, last, data))
        kept.seq, kept.size = last, kept.size + len(data)
        if batch.ended:
            kept.ended, kept.expires = True, self._now + batch.keep

    async def find(self, turn: str) -> Stored | None:
        kept = self._kept(turn)
        return None if kept is None else self._stored(kept)

    async def read(self, turn: str, tenant: str, after: int) -> Sequence[Page]:
        kept = self._kept(turn)
        pages = [] if kept is None else [page for page in kept.pages if page[1] > after]
        return [Page(epoch, _entries(last, data, after)) for epoch, last, data in pages]

    async def watch(self, turn: str) -> None:
        if (kept := self._kept(turn)) is not None:
            kept.watched = self._now

    async def cancel(self, turn: str) -> None:
        if (kept := self._kept(turn)) is not None and not kept.ended:
            kept.cancelled = True

    async def confirm(self, turn: str, seq: int) -> bool:
        """There is no replica."""
        return False

    async def take(self, turn: str, owner: str, gateway: str, least: int = 0) -> Stored | None:
        kept = self._kept(turn)
        if kept is None or kept.ended:
            return None
        if owner != gateway and (kept.record.gateway, kept.before) == (gateway, owner):
            return self._stored(kept)
        if kept.record.gateway != owner:
            return None
        self._gateways.setdefault(gateway, self._now)
        kept.record = replace(kept.record, gateway=gateway, epoch=max(kept.record.epoch + 1, least))
        kept.before = owner
        return self._stored(kept)

    async def beat(self, gateway: str, seconds: float) -> None:
        self._gateways[gateway] = self._now + seconds

    async def lapsed(self) -> Sequence[str]:
        return [name for name, ends in self._gateways.items() if ends <= self._now]

    async def orphans(self, gateway: str) -> Sequence[str]:
        living = {id: kept for id in list(self._turns) if (kept := self._kept(id)) is not None}
        turns = [id for id, kept in living.items() if kept.record.gateway == gateway and not kept.ended]
        if not turns and self._gateways.get(gateway, 0.0) <= self._now:
            self._gateways.pop(gateway, None)
        return turns

    def _kept(self, turn: str) -> Kept | None:
        kept = self._turns.get(turn)
        if kept is not None and kept.expires <= self._now:
            del self._turns[turn]
            return None
        return kept

    def _stored(self, kept: Kept) -> Stored:
        record = replace(kept.record, seconds=kept.deadline - self._now, claim=None)
        return Stored(record, kept.seq, kept.ended, kept.cancelled)


def _entries(last: int, data: bytes, after: int) -> list[Entry]:
    events = codec.decode(data)
    return [Entry(seq, event) for seq, event in enumerate(events, last - len(events) + 1) if seq > after]
