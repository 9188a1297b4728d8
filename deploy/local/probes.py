"""Is it there yet? Questions asked of processes that start, over their real protocols."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.local.processes import find
from deploy.local.record import Process

EVERY = 0.1  # seconds between two looks


class NotReady(Exception):
    """The process ended, or the time is up; the message says which."""


def wait_for(ready: Callable[[], bool], process: Process, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if find(process) is None:
            raise NotReady("it ended")
        if time.monotonic() > until:
            raise NotReady(f"it was not ready after {seconds:.0f} s")
        time.sleep(EVERY)


def says(log: Path, text: str) -> bool:
    return text in log.read_text(errors="replace")


def store_answers(url: str) -> bool:
    import redis

    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def store_version(url: str) -> str | None:
    """Name and version of the server; None if it does not answer."""
    import redis

    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        server = client.info("server")
    except redis.RedisError:
        return None
    finally:
        client.close()
    name = server.get("server_name", "redis")
    return f"{name} {server.get(f'{name}_version', server.get('redis_version', '?'))}"


def serving(address: str) -> bool:
    """grpc.health.v1 says SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # A proxy in the environment is for other hosts.
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
