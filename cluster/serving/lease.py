"""A replica's lease in Redis: how gateways learn that it exists, and that it is gone."""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cluster.engine.health import Clock

log = logging.getLogger(__name__)

REPLICAS = "headrace:replicas"
TIMEOUT_S = 0.5


def lease_key(replica: str) -> str:
    return f"headrace:lease:{replica}"


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """`epoch`: milliseconds of the wall clock at the start of the replica. Later starts are higher."""

    replica: str
    address: str
    model: str
    revision: str
    epoch: int
    capacity: int
    engine: str
    context_length: int

    def encode(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def open_redis(url: str) -> Redis:
    """A client that tries once and soon gives up: the next renewal is the retry."""
    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Lease:
    """Renews one record. Redis may be away for any time: the replica goes on serving."""

    def __init__(
        self, redis: Redis, record: LeaseRecord, *, ttl_ms: int, renew_ms: int, clock: Clock
    ) -> None:
        self._redis = redis
        self._record = record
        self._ttl_ms = ttl_ms
        self._renew_s = renew_ms / 1000
        self._clock = clock
        self._held: bool | None = None
        self._released = False
        self._renewing: asyncio.Task[None] | None = None

    async def hold(self) -> None:
        """Write the record once, then renew it in the background until `release`."""
        await self.renew()
        self._renewing = asyncio.create_task(self._run(), name="lease")

    async def renew(self) -> bool:
        """Write the record once; False when Redis did not take it."""
        replica = self._record.replica
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(lease_key(replica), self._record.encode(), px=self._ttl_ms)
                # In every renewal: the set is lost when Redis starts empty.
                pipe.sadd(REPLICAS, replica)
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._note(False, type(error).__name__)
            return False
        self._note(True, "")
        return True

    async def release(self) -> None:
        """Withdraw the record for good; when Redis is away it expires by itself."""
        self._released = True
        if self._renewing is not None:
            # Ended first: a renewal under way would bring the record back.
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        replica = self._record.replica
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.delete(lease_key(replica))
                pipe.srem(REPLICAS, replica)
                await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("lease of %s not withdrawn: %s", replica, type(error).__name__)
        self._held = False

    async def _run(self) -> None:
        # The flag as well as the cancel: redis-py swallows a cancel that meets it in a reply.
        while not self._released:
            await self._clock.sleep(self._renew_s)
            await self.renew()

    def _note(self, held: bool, why: str) -> None:
        """Log a change of state, never a state."""
        if held is self._held:
            return
        self._held = held
        if held:
            log.info("lease of %s held, address %s", self._record.replica, self._record.address)
        else:
            log.warning("lease of %s not renewed: %s", self._record.replica, why)
