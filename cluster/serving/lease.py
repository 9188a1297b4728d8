"""A replica's lease in Redis: how gateways learn that it exists, and that it is gone."""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError

from cluster.engine.health import Clock

log = logging.getLogger(__name__)

REPLICAS = "headrace:replicas"
TIMEOUT_S = 0.5
SENTINEL_PORT, PORT = 26379, 6379
# What Redis may raise while it is away. A cluster of which no node answers has an error of no family.
AWAY = (RedisError, RedisClusterException, OSError)
# Of every connection: one try, and soon given up.
ONCE = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}


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


def open_redis(url: str) -> Redis | RedisCluster:
    """A client that tries once and soon gives up: the next renewal is the retry.

    The addresses are the gateway's, which has the grammar (services/store/address.py; cluster may not import
    services): redis://, rediss://, unix://, redis+sentinel://host,host/NAME[/db], redis+cluster://host,host.
    """
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    family, _, kind = scheme.lower().partition("+")
    once: dict[str, Any] = ONCE | {"retry": Retry(NoBackoff(), 0)}
    if not kind:
        return Redis.from_url(url, **once)
    login, at, hosts = authority.rpartition("@")
    options: dict[str, Any] = dict(parse_url(f"{family}://{login}{at}host?{query}"))
    asked = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    for name in ("host", "connection_class"):
        options.pop(name, None)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    options |= once | {"ssl": family == "rediss"}
    if kind == "cluster":
        nodes: Any = [ClusterNode(*_place(host, PORT)) for host in hosts.split(",")]
        return RedisCluster(startup_nodes=nodes, **options)
    sentinels: Any = Sentinel(
        [_place(host, SENTINEL_PORT) for host in hosts.split(",")],
        sentinel_kwargs=asked | tls | once | {"ssl": options["ssl"]},
    )  # type: ignore[no-untyped-call]
    name, _, db = path.strip("/").partition("/")
    client: Redis = sentinels.master_for(unquote(name), **{"db": int(db or 0), **options})
    return client


def _place(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or default


class Lease:
    """Renews one record. Redis may be away for any time: the replica goes on serving."""

    def __init__(
        self, redis: Redis | RedisCluster, record: LeaseRecord, *, ttl_ms: int, renew_ms: int, clock: Clock
    ) -> None:
        # redis-py types a reply as "awaitable or not"; the tests are the check.
        self._redis: Any = redis
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
            # Not a pipeline: in a cluster the keys have two owners, and only plain commands find a new one.
            await self._redis.set(lease_key(replica), self._record.encode(), px=self._ttl_ms)
            # In every renewal: the set is lost when Redis starts empty.
            await self._redis.sadd(REPLICAS, replica)
        except AWAY as error:
            self._note(False, type(error).__name__)
            if isinstance(error, ReadOnlyError):
                # What was the master is none now; its name may lead elsewhere by the next renewal.
                await self._redis.aclose()
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
            await self._redis.delete(lease_key(replica))
            await self._redis.srem(REPLICAS, replica)
        except AWAY as error:
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
