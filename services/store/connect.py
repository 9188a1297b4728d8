"""How every room talks to Redis or Valkey: one client with our limits, one translation of its errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.core.errors import Internal, StoreAway

CONNECTIONS = 64  # per process; a caller that finds none free waits at most the timeout
AWAY_TEXT = "the session and key store does not answer"

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
AWAY_REPLIES = ("MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "BUSY ", "NOAUTH")


def connect(url: str, *, timeout: float = 0.25) -> Redis:
    """A client that repeats nothing by itself: the default of ten repeats would multiply every append."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=False,
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns "the store cannot serve" into StoreAway; the cause stays chained for the log."""
    try:
        yield
    except AWAY as error:
        raise StoreAway(AWAY_TEXT) from error
    except exceptions.ResponseError as error:
        # In a pipeline redis-py puts the command before the reply.
        reply = str(error).rpartition("caused error: ")[2]
        code = reply.lstrip("('\"")
        if code.startswith(AWAY_REPLIES):
            raise StoreAway(AWAY_TEXT) from error
        # Not chained: redis-py's text holds the command with its arguments, and it would reach the log.
        raise Internal(f"the store refused a command ({code.split(' ')[0][:40]})") from None
