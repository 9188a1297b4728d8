"""A local stack as a newcomer gets it, for system tests: `headrace up` in a folder of its own, and `down` after."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from services.client import Client, HeadraceError

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Up:
    home: Path
    env: dict[str, str]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "services.cli", *words]
        return subprocess.run(argv, env=self.env, text=True, capture_output=True, cwd=ROOT, timeout=400)

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "stack.json").read_text()))

    def pid(self, name: str) -> int:
        return next(process["pid"] for process in self.record["processes"] if process["name"] == name)

    def client(self) -> Client:
        return Client(self.record["endpoint"], (self.home / "api-key").read_text().strip())

    def engine_processes(self, title: str) -> list[psutil.Process]:
        """Those of Ray's that vLLM has given this title, as `VLLM::EngineCore`."""
        family = psutil.Process(self.pid("ray")).children(recursive=True)
        return [one for one in family if title in " ".join(one.cmdline())]


@contextmanager
def running_stack(home: Path, *words: str) -> Iterator[Up]:
    """`words` follow `headrace up`. Nothing of the stack is left afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    up = Up(home, kept | {"HEADRACE_HOME": str(home)})
    started = up.run("up", "--port", "0", *words)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield up
    finally:
        before = (
            psutil.Process(up.pid("ray")).children(recursive=True) if (home / "stack.json").exists() else []
        )
        up.run("down")
    assert not [one for one in before if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


async def until_served(client: Client, seconds: float) -> None:
    """Asks until a turn completes: what a caller with retries would do."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await client.generate("hi", max_tokens=1)
                return
            except HeadraceError as error:
                await asyncio.sleep(error.retry_after or 0.5)
