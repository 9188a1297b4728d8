"""A fault is injected, proven and healed. One that did not happen is an error of the test, never a pass."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from tests.faults.talk import state_of
from tests.support.gateway import until

PROVEN = 10.0  # seconds for a fault to show


class NotInjected(Exception):
    """The fault did not happen, so that the test says nothing."""


class Fault(Protocol):
    proof: str  # what `verify` looks at, in a few words

    async def inject(self) -> None: ...

    async def verify(self) -> None:
        """Raises NotInjected."""
        ...

    async def heal(self) -> None:
        """Makes an end of it; can be repeated."""
        ...


@asynccontextmanager
async def under(fault: Fault) -> AsyncIterator[float]:
    """Injects, proves, and heals at the end; gives the moment of the injection, seconds of the monotonic clock."""
    moment = time.monotonic()
    await fault.inject()
    try:
        await fault.verify()
        yield moment
    finally:
        await fault.heal()


async def shows(condition: Callable[[], bool], what: str) -> None:
    """Raises NotInjected unless the condition becomes true."""
    try:
        await until(condition, PROVEN)
    except TimeoutError:
        raise NotInjected(what) from None


@dataclass(slots=True)
class Killed:
    """SIGKILL. What was killed stays so; who wants another one starts it."""

    pid: int
    proof: str = "pid gone"

    async def inject(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def verify(self) -> None:
        await shows(lambda: state_of(self.pid) in ("", "Z"), f"{self.pid} lives")

    async def heal(self) -> None:
        pass


@dataclass(slots=True)
class KilledFamily:
    """SIGKILL to a process and all below it, the parent first so that it starts nothing anew."""

    pid: int
    proof: str = "pids gone"
    _family: list[psutil.Process] = field(default_factory=list)

    async def inject(self) -> None:
        parent = psutil.Process(self.pid)
        self._family = [parent, *parent.children(recursive=True)]
        for one in self._family:
            one.kill()

    async def verify(self) -> None:
        await shows(lambda: all(state_of(one.pid) in ("", "Z") for one in self._family), "a process lives")

    async def heal(self) -> None:
        pass


@dataclass(slots=True)
class Frozen:
    """SIGSTOP, until healed: the process is there and does nothing, its sockets accept."""

    pid: int
    proof: str = "state T in /proc"

    async def inject(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    async def verify(self) -> None:
        await shows(lambda: state_of(self.pid) == "T", f"{self.pid} is in state {state_of(self.pid)!r}")

    async def heal(self) -> None:
        if state_of(self.pid):
            os.kill(self.pid, signal.SIGCONT)


@dataclass(slots=True)
class Terminated:
    """SIGTERM: the polite end."""

    pid: int
    proof: str = "exit code 0"

    async def inject(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def verify(self) -> None:
        """The exit code is the test's to read: it takes as long as the grace."""

    async def heal(self) -> None:
        pass


async def ended(process: asyncio.subprocess.Process, seconds: float) -> int:
    """The exit code. Raises TimeoutError."""
    return await asyncio.wait_for(process.wait(), seconds)
