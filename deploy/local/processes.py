"""Starting processes that outlive us, and ending exactly those."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from deploy.local.record import MARK, Process, Stack


def start(name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> Process:
    """In a session of its own, so that a Ctrl-C at our terminal does not reach it."""
    with log.open("wb") as out:
        child = subprocess.Popen(  # noqa: S603 - argv is ours
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, start_new_session=True
        )
    return Process(name, child.pid, psutil.Process(child.pid).create_time(), str(log))


def find(process: Process) -> psutil.Process | None:
    """The running process of this record; None if it ended, even if another one has its pid."""
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.created) < 0.01
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def marked(stack: str) -> list[psutil.Process]:
    """Processes of this user that carry the mark of the stack."""
    return [process for process in psutil.process_iter() if mark_of(process) == stack]


def mark_of(process: psutil.Process) -> str | None:
    if process.pid == os.getpid():
        return None
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


REPLICA = "ray::ServeReplica:"  # what Ray calls the process of an engine's replica
WORKER = "services.gateway.worker"


def replicas(stack: Stack) -> list[psutil.Process]:
    return _within(stack, "ray", REPLICA)


def workers(stack: Stack) -> list[psutil.Process]:
    """The gateway's workers; the one with the most connections of its port first."""
    port = int(stack.endpoint.rpartition(":")[2])
    return sorted(_within(stack, "gateway", WORKER), key=lambda worker: _callers(worker, port), reverse=True)


def _callers(process: psutil.Process, port: int) -> int:
    try:
        links = process.net_connections("tcp")
    except psutil.Error:
        return 0
    return sum(link.status == psutil.CONN_ESTABLISHED and link.laddr.port == port for link in links)


def _within(stack: Stack, name: str, title: str) -> list[psutil.Process]:
    """Living processes below a recorded one whose command line has this title."""
    roots = [root for process in stack.processes if process.name == name and (root := find(process))]
    return [one for root in roots for one in family(root) if title in _title(one)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())  # of a zombie: nothing
    except psutil.Error:
        return ""


def kill(process: psutil.Process, seconds: float = 10.0) -> bool:
    """Kills it without a warning; whether it is gone, which a zombie is."""
    _signal([process], kill=True)
    psutil.wait_procs([process], timeout=seconds)
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(process: Process, grace: float) -> bool:
    """Asks the process to end, waits, then kills what is left of its family. False if it was gone already."""
    root = find(process)
    if root is None:
        return False
    members = family(root)
    _signal([root], kill=False)
    psutil.wait_procs([root], timeout=grace)
    _, left = psutil.wait_procs(members, timeout=0.2)
    _kill(left)
    return True


def sweep(stack: str) -> int:
    """Kills what carries the mark of the stack although its parents are gone; returns how many."""
    strays = marked(stack)
    _kill(strays)
    return len(strays)


def _kill(processes: Iterable[psutil.Process]) -> None:
    victims = list(processes)
    _signal(victims, kill=True)
    psutil.wait_procs(victims, timeout=10)


def _signal(processes: Iterable[psutil.Process], *, kill: bool) -> None:
    for process in processes:
        try:
            # psutil compares the creation time itself, so a recycled pid is safe here too.
            process.kill() if kill else process.terminate()
        except psutil.NoSuchProcess:
            continue


CAUSE = re.compile(r"(?<![\w.])[\w.]*(?:Error|Exception): \S.*")
COMPLAINT = re.compile(r"^(?:ERROR|FATAL|error:)| ERROR | FATAL ")


def last_words(log: Path) -> str:
    """What most likely names the cause: the last exception, or the last complaint, or the last line."""
    try:
        lines = log.read_text(errors="replace")[-200_000:].splitlines()
    except FileNotFoundError:
        return "it left no log"
    lines = [line.strip() for line in lines if line.strip()]
    causes = [found[0] for line in lines if (found := CAUSE.search(line)) and "root cause" not in line]
    complaints = [line for line in lines if COMPLAINT.search(line)]
    return (causes or complaints or lines or ["its log is empty"])[-1][:400]
