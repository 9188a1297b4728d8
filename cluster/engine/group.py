"""The processes of one engine on this node: they live and die together.

A shard that is gone leaves the others waiting in a collective for as long as torch or NCCL allow,
which is minutes. So nobody waits: the first end of a process is the end of all.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import psutil

AGAIN_S = 0.2  # until processes that a dying engine still started are ended too


class Group:
    """Every engine process that this process starts from here on, and word of the engine's other nodes.

    Belongs to the running event loop. `elsewhere` resolves with what happened when another node is lost.
    """

    def __init__(self, elsewhere: "asyncio.Future[str] | None" = None) -> None:
        self.loss = ""
        self._loop = asyncio.get_running_loop()
        self._earlier = {process.pid for process in descendants()}
        self._watched: list[int] = []
        self._open = True
        if elsewhere is not None:
            elsewhere.add_done_callback(lambda done: self.end(done.result()))

    def watch(self, titles: str) -> None:
        """From here on the end of a process whose title begins so ends them all, and `loss` names it.

        An engine starts others too, compilers for one, that may come and go.
        """
        for process in self._members():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if (name := title(process)).startswith(titles):
                    watched = os.pidfd_open(process.pid)
                    self._watched.append(watched)
                    self._loop.add_reader(watched, self.end, f"{name} ended")

    def end(self, why: str) -> None:
        """Kill what is left, for the reason that the first caller gives."""
        if not self._open:
            return
        self.loss = self.loss or why
        self._unwatch()
        for process in self._members():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._loop.call_later(AGAIN_S, self.end, why)

    def close(self) -> None:
        """The engine is about to be stopped: an end is no loss any more."""
        self._open = False
        self._unwatch()

    def _members(self) -> Iterator[psutil.Process]:
        return (process for process in descendants() if process.pid not in self._earlier)

    def _unwatch(self) -> None:
        for watched in self._watched:
            self._loop.remove_reader(watched)
            os.close(watched)
        self._watched.clear()


def descendants() -> Iterator[psutil.Process]:
    """Processes below this one. Not multiprocessing's resource tracker: it clears up after the others."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(process.cmdline()):
                yield process


def title(process: psutil.Process) -> str:
    return str((process.cmdline() or [process.name()])[0]).strip()
