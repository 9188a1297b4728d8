"""How every room talks to Redis or Valkey: one client with our limits, one translation of its errors."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from services.core.clock import Clock, SystemClock
from services.core.errors import HeadraceError, Internal, StoreAway
from services.store.address import Mode, Place, StoreAddress, parse
from services.store.breaker import Breaker, State
from services.store.cluster import Cluster
from services.store.node import Node
from services.store.sentinel import pool as sentinel_pool

CONNECTIONS = 64  # per process and server; a caller that finds none free waits within its budget
AWAY_TEXT = "the session and key store does not answer"
FULL_TEXT = "the session and key store is full"  # the operator's maxmemory

Store = Node | Cluster
# Of a server, by its address: its breaker opened or closed.
OnState = Callable[[str, State], None]
# Entered around each call, by the command's name or "pipeline".
Call = Callable[[str], AbstractContextManager[object]]

# What says that the store cannot serve now. Other replies (a wrong type, a script that does not
# compile) are our own mistakes and stay what they are.
AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.NoPermissionError,
    exceptions.AskError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
    exceptions.TryAgainError,
    OSError,
)
AWAY_REPLIES = ("MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY ", "NOAUTH")


def _unheard(place: str, state: State) -> None:
    pass


def connect(
    url: str,
    *,
    timeout: float = 0.25,
    clock: Clock | None = None,
    on_state: OnState = _unheard,
    call: Call = nullcontext,
) -> Store:
    """A client that sends each command once: the default of ten repeats would multiply every append.

    `url`: see services/store/address.py. `timeout`: seconds that a call may take in all. Raises ValueError for
    an address that cannot be read; connects with the first call.
    """
    address, clock = parse(url), clock or SystemClock()

    def node(place: str, pool: BlockingConnectionPool) -> Node:
        breaker = Breaker(clock, on_change=lambda state: on_state(place, state))
        return Node.of(pool, breaker, timeout, call)

    if address.mode is Mode.CLUSTER:
        return Cluster(address.places, lambda place: node(str(place), _pool(address, place, timeout)), clock)
    if address.mode is Mode.SENTINEL:
        return node(address.name, _sentinel_pool(address, timeout))
    return node(str(address), _pool(address, address.places[0] if address.places else None, timeout))


def _pool(address: StoreAddress, place: Place | None, timeout: float) -> BlockingConnectionPool:
    options = _options(address, timeout) | _limits(timeout)
    if place is None:
        return BlockingConnectionPool(
            connection_class=UnixDomainSocketConnection, path=address.path, **options
        )
    kind = Connection if address.tls is None else SSLConnection
    return BlockingConnectionPool(connection_class=kind, **place._asdict(), **options)


def _sentinel_pool(address: StoreAddress, timeout: float) -> BlockingConnectionPool:
    login = {"username": address.sentinel_username, "password": address.sentinel_password, "db": 0}
    tls = {"ssl": True} if address.tls is not None else {}
    return sentinel_pool(
        address.places,
        address.name,
        sentinels=_options(address, timeout) | login | tls,
        master=_options(address, timeout) | _limits(timeout),
        tls=address.tls is not None,
        budget=timeout,
    )


def _limits(timeout: float) -> dict[str, Any]:
    return {"max_connections": CONNECTIONS, "timeout": timeout}


def _options(address: StoreAddress, timeout: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "db": address.db,
        # The budget of the whole call bounds reads and writes (node.py). redis-py's own bound on writes is
        # asyncio.wait_for, which before Python 3.12 loses a cancel that meets the end of the write.
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "decode_responses": False,
        # Round trips of a new connection that nothing here needs.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if address.protocol is not None:
        options["protocol"] = address.protocol
    return options | dict(address.tls or {})


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns "the store cannot serve" into StoreAway; the cause stays chained for the log."""
    try:
        yield
    except (*AWAY, exceptions.RedisError) as error:
        known = store_error(error)
        if known is None:
            raise
        # An Internal is not chained: redis-py's text may hold the command with its arguments.
        raise known from (error if isinstance(known, StoreAway) else None)


def store_error(error: Exception) -> HeadraceError | None:
    """What an error among a pipeline's replies means here; None if it is neither an outage nor a refusal."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, exceptions.OutOfMemoryError):
        return StoreAway(FULL_TEXT)
    if isinstance(error, AWAY):
        return StoreAway(AWAY_TEXT)
    if not isinstance(error, exceptions.ResponseError):
        return None
    # In a pipeline redis-py puts the command before the reply.
    code = str(error).rpartition("caused error: ")[2].lstrip("('\"")
    if code.startswith(AWAY_REPLIES):
        return StoreAway(AWAY_TEXT)
    return Internal(f"the store refused a command ({code.split(' ')[0][:40]})")
