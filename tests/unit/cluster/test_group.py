"""Processes that live and die together, shown on real ones that only wait."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from cluster.engine.group import Group

WAITS = [sys.executable, "-I", "-S", "-c", "input()"]
SOON_S = 10.0

# An actor as the guard sees it: it starts a process and is killed.
ACTOR = """
import subprocess, sys
from cluster.serving import guard
guard.stand()
print(subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).pid, flush=True)
input()
"""


def waiting() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """Started before the group, and no part of it."""
    process = waiting()
    yield process
    process.kill()
    process.wait(SOON_S)


async def ended(*processes: "subprocess.Popen[bytes]") -> None:
    await asyncio.gather(*(asyncio.to_thread(process.wait, SOON_S) for process in processes))


async def test_one_end_is_the_end_of_all(stranger: "subprocess.Popen[bytes]") -> None:
    group = Group()
    first, second, third = waiting(), waiting(), waiting()
    group.watch(sys.executable)
    second.kill()
    await ended(first, second, third)
    assert group.loss == f"{WAITS[0]} ended"
    assert stranger.poll() is None
    group.close()


async def test_a_process_of_another_name_may_come_and_go() -> None:
    group = Group()
    compiler = waiting()
    group.watch("VLLM::")
    compiler.kill()
    await ended(compiler)
    await asyncio.sleep(0)
    assert group.loss == ""
    group.close()


async def test_another_node_that_is_lost_is_the_end_of_all() -> None:
    elsewhere: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    group = Group(elsewhere)
    process = waiting()
    group.watch(sys.executable)
    elsewhere.set_result("node 1 is lost")
    await ended(process)
    assert group.loss == "node 1 is lost"
    group.close()


async def test_what_a_dying_group_still_starts_ends_too() -> None:
    group = Group()
    group.end("node 1 is lost")
    await ended(waiting())
    assert group.loss == "node 1 is lost"
    group.close()


async def test_an_end_after_the_close_is_no_loss() -> None:
    elsewhere: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    group = Group(elsewhere)
    one, other = waiting(), waiting()
    group.watch(sys.executable)
    group.close()
    one.kill()
    await ended(one)
    elsewhere.set_result("node 1 is lost")
    await asyncio.sleep(0)
    assert (group.loss, other.poll()) == ("", None)
    other.kill()
    await ended(other)


def test_a_killed_actor_takes_along_what_it_started() -> None:
    argv = [sys.executable, "-c", ACTOR, *WAITS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as actor:
        assert actor.stdout is not None
        child = psutil.Process(int(actor.stdout.readline()))
        family = psutil.Process(actor.pid).children(recursive=True)
        assert child in family and len(family) == 2
        actor.kill()
        _, alive = psutil.wait_procs(family, SOON_S)
    assert alive == []
