"""Lines between a test and a process that it started: commands on its stdin, what happens on its stdout."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0  # seconds for a process to say what it has to say


def state_of(pid: int) -> str:
    """As /proc/<pid>/stat has it; "" for no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def say(*words: object) -> None:
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def obey(commands: Mapping[str, Callable[..., object]]) -> None:
    """Runs what a line of stdin names, with the rest of the line, if any, as its argument."""

    def read() -> None:
        data = os.read(0, 4096)
        if not data:
            loop.remove_reader(0)
        for line in data.decode().splitlines():
            word, _, rest = line.partition(" ")
            commands[word](*([rest] if rest else []))

    loop = asyncio.get_running_loop()
    loop.add_reader(0, read)


class Gone(Exception):
    """The process ended before it said what was waited for."""


class Process:
    """A started `python -m MODULE`: what it said so far, and a way to wait for more."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.said: list[str] = []
        self.over = 0.0  # when it ended: seconds of the monotonic clock
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        return self.process.returncode

    @property
    def talks(self) -> bool:
        """It lives, and is not frozen."""
        return not self._reading.done() and state_of(self.pid) != "T"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def hear(self, word: str, after: int = 0) -> str:
        """The first line that begins with this word, after so many; without the word.

        Raises TimeoutError, Gone."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.said[after:]:
                    if line.split(" ")[0] == word:
                        return line[len(word) + 1 :]
                if self._reading.done():
                    raise Gone(f"ended without saying {word!r}: {self.log.read_text()[-2000:]}")
                self._more.clear()
                await self._more.wait()

    async def ask(self, question: str) -> str:
        """The answer to a command that says its own name with something after it."""
        after = len(self.said)
        self.tell(question)
        return await self.hear(question.split(" ")[0], after)

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode().rstrip("\n"))
            self._more.set()
        self.over = time.monotonic()
        self._more.set()


@asynccontextmanager
async def running(module: str, *words: str, env: Mapping[str, str], log: Path) -> AsyncIterator[Process]:
    """Its stderr goes to `log`. It is killed at the end if it still runs."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", module, *words),
            cwd=ROOT,
            env=dict(env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    started = Process(process, log)
    try:
        yield started
    finally:
        await started.stop()
