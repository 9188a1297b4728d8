"""A bring-up on its way: what it knows, what it has started so far, and how it starts and awaits things."""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local import probes
from deploy.local.home import Home
from deploy.local.model import Choice
from deploy.local.ports import Ports
from deploy.local.processes import last_words, start
from deploy.local.record import MARK, Process, Stack
from deploy.local.secrets import Secrets

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Wish:
    """What `headrace up` asks for. Port 0: any three that are free."""

    model: str | None = None
    engine: str | None = None
    port: int = 50051
    patience: float = 600.0  # seconds for the engine to start
    tensor_parallel: int | None = None  # shards, if the operator says how many
    replicas: int = 1
    workers: int = 1  # of the gateway
    max_replicas: int | None = None  # none: their number is fixed


class StageFailed(Exception):
    """A stage did not reach its end: why, where its log is, and what to do."""

    def __init__(self, why: str, *, log: str = "", do: str = "") -> None:
        super().__init__(why)
        self.why, self.log, self.do = why, log, do


@dataclass(slots=True)
class Run:
    wish: Wish
    home: Home
    choice: Choice
    stack: Stack
    secrets: Secrets
    env: Mapping[str, str]
    ports: Ports

    @property
    def most(self) -> int:
        """Replicas that this machine has to hold."""
        return max(self.wish.replicas, self.wish.max_replicas or 0)

    def log(self, name: str) -> Path:
        return self.home.logs / f"{name}.log"

    def spawn(self, name: str, argv: list[str], env: Mapping[str, str] | None = None) -> Process:
        process = start(name, argv, self._environment(env), self.log(name), CHECKOUT)
        self.stack.processes.append(process)
        self.stack.save(self.home.record)
        return process

    def finish(self, name: str, argv: list[str], seconds: float, env: Mapping[str, str] | None = None) -> int:
        """Runs a command to its end, its output in the log; its exit code, or StageFailed when time is up."""
        with self.log(name).open("wb") as out:
            try:
                return subprocess.run(  # noqa: S603 - argv is ours
                    argv, env=self._environment(env), cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=out,
                    stderr=out, timeout=seconds, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                why = f"it was not ready after {seconds:.0f} s"
                raise StageFailed(why, log=str(self.log(name)), do="look into the log") from None

    def wait_for(self, ready: Callable[[], bool], process: Process, seconds: float, do: str) -> None:
        try:
            probes.wait_for(ready, process, seconds)
        except probes.NotReady as error:
            why = f"{error}: {last_words(Path(process.log))}"
            raise StageFailed(why, log=process.log, do=do) from error

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {**self.env, **(more or {}), MARK: self.stack.id}
