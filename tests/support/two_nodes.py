"""A real Ray of two nodes on this machine, each with two CPUs in Ray's books.

Where this user may make network namespaces, each node has its own, with an address and shared memory of its
own: what one node's processes reach of the other's, they reach over the network. Elsewhere the nodes are two
addresses of loopback. `TwoNodes.kind` says which it was.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.valkey import free_port

ROOT = Path(__file__).parent.parent.parent
RAY = str(Path(sys.executable).with_name("ray"))
START_S = 90.0
STOP_S = 30.0
ENGINE_STOP_S = 10.0


@dataclass(slots=True)
class Node:
    """`prefix` is what makes a command run there."""

    address: str
    prefix: list[str] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None
    orphans: list[psutil.Process] = field(default_factory=list)

    def processes(self) -> list[psutil.Process]:
        """What runs below `ray start`, and what its end left behind."""
        below: list[psutil.Process] = []
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                below = psutil.Process(self.process.pid).children(recursive=True)
        return below + [one for one in self.orphans if one.is_running() and one not in below]

    def titled(self, words: str) -> list[psutil.Process]:
        return [one for one in self.processes() if words in title(one)]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@dataclass(slots=True)
class TwoNodes:
    """`here` is an address of this process that both nodes reach."""

    kind: str
    here: str
    nodes: tuple[Node, Node]
    scratch: Path
    ray: str = ""

    def serving(self, config: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        """`python -m cluster.serving` on the first node, as an operator would run it on a head node."""
        argv = [*self.nodes[0].prefix, sys.executable, "-m", "cluster.serving", "--config", str(config)]
        return subprocess.run(
            [*argv, *words], env=self.env(), cwd=ROOT, text=True, capture_output=True, timeout=280
        )

    def env(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("HEADRACE_", "RAY_"))}
        return kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0" * 64,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_worker_niceness": "0",
            "TMPDIR": str(self.scratch),
        }

    def start(self) -> None:
        first, second = self.nodes
        # On loopback all ports are shared; where nodes have addresses of their own, any port is free there.
        self.ray = f"{first.address}:{free_port()}"
        port = self.ray.rpartition(":")[2]
        self._start(
            first, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.scratch}"
        )
        self._start(second, f"--address={self.ray}")

    def kill_raylet(self, node: Node) -> None:
        """As when the machine is lost: Ray's own process there is gone, and nothing was told."""
        node.orphans = node.processes()
        [raylet] = [one for one in node.orphans if one.name() == "raylet"]
        raylet.kill()

    def restart(self, node: Node) -> None:
        """A node where one was lost."""
        self._end(node)
        self._start(node, f"--address={self.ray}")

    def _end(self, node: Node) -> None:
        if node.process is not None:
            node.process.terminate()
            node.process.wait(STOP_S)

    def _start(self, node: Node, *options: str) -> None:
        log = self.scratch / f"{node.address}.log"
        argv = [*node.prefix, RAY, "start", "--block", "--disable-usage-stats", "--include-log-monitor=false"]
        argv += ["--min-worker-port=0", "--max-worker-port=0"]  # any: two nodes on loopback share one range
        argv += [f"--node-ip-address={node.address}", "--num-cpus=2", f"--object-store-memory={128 << 20}"]
        argv += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
        with log.open("wb") as out:
            node.process = subprocess.Popen(
                [*argv, *options], env=self.env(), cwd=ROOT, stdout=out, stderr=out
            )
        process = node.process
        until(lambda: "Ray runtime started" in log.read_text(), START_S, log.read_text, process.poll)

    def stop(self) -> None:
        """Ends Ray. Its agents wait for a raylet that is gone and are ended too; an engine's process
        that is left is told of."""
        started = [one for node in self.nodes for one in node.processes()]
        for node in reversed(self.nodes):
            self._end(node)
        _, alive = psutil.wait_procs([one for one in started if "VLLM::" in title(one)], ENGINE_STOP_S)
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(started, STOP_S)
        assert not alive, alive


def until(
    met: Callable[[], bool], seconds: float, what: Callable[[], str], over: Callable[[], int | None]
) -> None:
    give_up = time.monotonic() + seconds
    while not met():
        assert over() is None and time.monotonic() < give_up, what()
        time.sleep(0.05)  # the only wait: what Ray prints is all it tells


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        # Unix sockets lie in this folder, and their paths may not exceed 107 bytes.
        scratch = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))
        undo.callback(shutil.rmtree, scratch, ignore_errors=True)
        ray = namespaced(undo, scratch) or TwoNodes(
            "loopback", "127.0.0.1", (Node("127.0.0.2"), Node("127.0.0.3")), scratch
        )
        undo.callback(ray.stop)
        ray.start()
        yield ray


def namespaced(undo: ExitStack, scratch: Path) -> TwoNodes | None:
    """Two namespaces on a bridge of this one; None where this machine or user cannot have them."""
    name, net = f"hr{os.getpid()}", f"198.18.{os.getpid() % 256}"
    with ExitStack() as made:
        try:
            bridge(made, name, f"{net}.1")
            nodes = tuple(
                namespace(made, name, f"{name}{letter}", f"{net}.{n}") for n, letter in ((2, "a"), (3, "b"))
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        undo.push(made.pop_all())
    return TwoNodes("network namespaces", f"{net}.1", nodes, scratch)


def bridge(made: ExitStack, name: str, address: str) -> None:
    link(made, ["link", "add", name, "type", "bridge"], ["link", "del", name])
    ip("addr", "add", f"{address}/24", "dev", name)
    ip("link", "set", name, "up")


def wired(made: ExitStack, bridge: str, name: str, address: str) -> None:
    """A network namespace on the bridge, with an address of its own."""
    link(made, ["netns", "add", name], ["netns", "del", name])
    # Unlinked by itself too: a connection that nobody ended keeps a namespace for minutes.
    veth = ["type", "veth", "peer", "name", "eth0", "netns", name]
    link(made, ["link", "add", name, *veth], ["link", "del", name])
    ip("link", "set", name, "master", bridge, "up")
    for words in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
        ip("-n", name, *words.split())


def namespace(made: ExitStack, bridge: str, name: str, address: str) -> Node:
    wired(made, bridge, name, address)
    # Its own shared memory too: that is how vLLM's shards see whether they share a machine.
    shell = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    prefix = ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "sh", "-c", shell, "sh"]
    subprocess.run([*prefix, "true"], check=True, capture_output=True)
    return Node(address, prefix)


def link(made: ExitStack, make: list[str], undo: list[str]) -> None:
    ip(*make)
    made.callback(ip, *undo)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
