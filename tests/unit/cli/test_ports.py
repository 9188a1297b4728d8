"""Ports that `headrace up` keeps for servers which start later: real sockets, and real servers that take them over."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from prometheus_client import start_http_server

from deploy.local import doctor, readings
from deploy.local.home import Home
from deploy.local.ports import Ports
from deploy.local.stages import LOOPBACK

ROOT = Path(__file__).parents[3]
IP_LOCAL_PORT_RANGE = 51  # Linux 6.3: the ports that this socket may be given; Python 3.11 has no name for it


@pytest.fixture
def ports() -> Iterator[Ports]:
    with Ports() as ports:
        yield ports


def only(port: int) -> socket.socket:
    """A socket that the kernel may give no other port."""
    made = socket.socket()
    try:
        made.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", port << 16 | port))
    except OSError:
        made.close()
        pytest.skip("this kernel has no range of ports for one socket")
    return made


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server


def test_no_connection_is_given_a_kept_port(listening: socket.socket) -> None:
    with Ports() as ports:
        port = ports.keep()
        with only(port) as caller, pytest.raises(OSError, match="assign"):
            caller.connect(listening.getsockname())
    with only(port) as caller:
        caller.connect(listening.getsockname())
        assert caller.getsockname()[1] == port


def test_no_server_that_takes_any_port_is_given_a_kept_one() -> None:
    with Ports() as ports:
        port = ports.keep()
        with only(port) as server, pytest.raises(OSError, match="in use"):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((LOOPBACK, 0))
    with only(port) as server:
        server.bind((LOOPBACK, 0))


def test_the_gateway_s_servers_take_over_kept_ports(ports: Ports) -> None:
    metrics, thread = start_http_server(ports.keep(), LOOPBACK)
    metrics.shutdown()
    metrics.server_close()
    thread.join()
    address = f"{LOOPBACK}:{ports.keep()}"
    workers = [grpc.server(ThreadPoolExecutor(), options=(("grpc.so_reuseport", 1),)) for _ in range(2)]
    for worker in workers:
        assert worker.add_insecure_port(address)
    alone = grpc.server(ThreadPoolExecutor(), options=(("grpc.so_reuseport", 0),))
    assert alone.add_insecure_port(f"{LOOPBACK}:{ports.keep()}")
    for server in (*workers, alone):
        server.start()
        server.stop(None).wait()


def test_a_port_that_listens_is_not_kept(ports: Ports, listening: socket.socket) -> None:
    with pytest.raises(OSError, match="in use"):
        ports.keep(listening.getsockname()[1])


def test_a_port_that_a_connection_has_is_named_before_anything_starts(
    tmp_path: Path, listening: socket.socket
) -> None:
    with socket.create_connection(listening.getsockname()) as caller:
        port = caller.getsockname()[1]
        argv = [sys.executable, "-m", "services.cli", "up", "--engine", "sim", "--port", str(port)]
        env = {**os.environ, "HEADRACE_HOME": str(tmp_path)}
        done = subprocess.run(argv, env=env, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "stage 'preflight' failed" in done.stderr and f"port {port}: Address already in use" in done.stderr
    assert "--port 51000" in done.stderr and f"(pid {os.getpid()})" in done.stderr
    assert not (tmp_path / "stack.json").exists()


def test_the_doctor_sees_a_port_that_a_connection_has(tmp_path: Path, listening: socket.socket) -> None:
    with socket.create_connection(listening.getsockname()) as caller:
        read = readings.read(Home.of({"HEADRACE_HOME": str(tmp_path)}), [caller.getsockname()[1]], None)
    assert doctor.ports(read).verdict == "fail"
    assert doctor.ports(readings.read(Home.of({"HEADRACE_HOME": str(tmp_path)}), [0], None)).verdict == "ok"


def test_a_process_that_we_may_not_see_is_not_taken_for_this_one(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = [each._replace(pid=None) for each in psutil.net_connections("tcp")]
    monkeypatch.setattr(psutil, "net_connections", lambda kind: unseen)
    port = listening.getsockname()[1]
    assert readings.refusal(port) == "Address already in use by another user's process"
