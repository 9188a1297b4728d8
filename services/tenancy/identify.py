"""Who is calling: an `authorization` value becomes a tenant, or one refusal that tells nothing."""

import asyncio
import hmac
from collections import OrderedDict
from dataclasses import dataclass

from services.core.clock import Clock
from services.core.errors import StoreAway
from services.core.request import Tenant
from services.tenancy.keys import KeyRecord, KeyStore, KeyText, digest, parse, unauthenticated

FRESH_SECONDS = 5.0  # a revoked key stops within this time
STALE_SECONDS = 900.0  # how long a known caller is served while the store is away
AWAY_SECONDS = 1.0  # after a failed look-up the store is left alone for this time
ENTRIES = 4096  # bound of each cache; beyond it the least recently used entry goes

# An unknown id is compared with this record, so that it costs what a wrong secret costs.
NOBODY = KeyRecord(id="", digest="0" * 64, tenant="nobody", name="", env="", created=0.0, revoked=True)


@dataclass(frozen=True, slots=True)
class Entry:
    record: KeyRecord | None
    read: float  # monotonic time of the look-up

    def younger(self, seconds: float, now: float) -> bool:
        return now - self.read <= seconds


class Cache:
    """The last look-ups, bounded. Known and unknown ids are apart: a flood of one leaves the other."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._known: OrderedDict[str, Entry] = OrderedDict()
        self._unknown: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def get(self, id: str) -> Entry | None:
        return self._known.get(id) or self._unknown.get(id)

    def put(self, id: str, entry: Entry) -> None:
        there, other = self._known, self._unknown
        if entry.record is None:
            there, other = other, there
        other.pop(id, None)
        there[id] = entry
        there.move_to_end(id)
        if len(there) > self._entries:
            there.popitem(last=False)


class Keyring:
    def __init__(self, store: KeyStore, pepper: bytes, clock: Clock, *, entries: int = ENTRIES) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._cache = Cache(entries)
        self._reading: dict[str, asyncio.Future[KeyRecord | None]] = {}
        self._away_until = float("-inf")

    async def identify(self, authorization: str | None) -> Tenant:
        """Raises Unauthenticated, or StoreAway for a caller that nobody here has seen lately."""
        key = parse(_bearer(authorization))
        record = await self._lookup(key.id)
        if not self._proves(key, record or NOBODY) or record is None:
            raise unauthenticated()
        return Tenant(id=record.tenant, key=record.id, scopes=record.scopes)

    def _proves(self, key: KeyText, record: KeyRecord) -> bool:
        same = hmac.compare_digest(digest(self._pepper, key.secret), record.digest)
        return same and key.env == record.env and record.usable(self._clock.now())

    async def _lookup(self, id: str) -> KeyRecord | None:
        entry, now = self._cache.get(id), self._clock.monotonic()
        if entry is not None and entry.younger(FRESH_SECONDS, now):
            return entry.record
        try:
            return await self._read(id)
        except StoreAway:
            if entry is None or entry.record is None or not entry.younger(STALE_SECONDS, now):
                raise
            return entry.record

    async def _read(self, id: str) -> KeyRecord | None:
        """One look-up per id at a time; callers that come meanwhile share its answer."""
        while (reading := self._reading.get(id)) is not None:
            await asyncio.wait({reading})
            if not reading.cancelled():
                return reading.result()
        if self._clock.monotonic() < self._away_until:
            raise StoreAway("the key store does not answer")
        self._reading[id] = mine = asyncio.get_running_loop().create_future()
        try:
            record = await self._store.get(id)
        except StoreAway as error:
            self._away_until = self._clock.monotonic() + AWAY_SECONDS
            mine.set_exception(error)
            mine.exception()  # read here, in case nobody shares it
            raise
        else:
            self._cache.put(id, Entry(record, self._clock.monotonic()))
            mine.set_result(record)
            return record
        finally:
            del self._reading[id]
            mine.cancel()  # no effect once answered; a cancelled reader hands over to the next


def _bearer(authorization: str | None) -> str:
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise unauthenticated()
    return text.strip(" ")
