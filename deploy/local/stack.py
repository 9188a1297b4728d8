"""`up` and `down`: a whole stack, brought up stage by stage or not at all, and ended to the last process."""

import fcntl
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.local import model, readings
from deploy.local.home import Home
from deploy.local.ports import Ports
from deploy.local.processes import end, find, sweep
from deploy.local.progress import Report
from deploy.local.record import Process, Stack
from deploy.local.run import Run, StageFailed, Wish
from deploy.local.secrets import Secrets
from deploy.local.stages import STAGES

GRACE = {"gateway": 40.0, "ray": 20.0, "store": 20.0}  # seconds to end by itself


class Refused(Exception):
    """What was asked cannot be done now; the message says why and what to do."""


class BringUpFailed(Exception):
    """A stage failed and what was started has been stopped."""

    def __init__(self, stage: str, cause: StageFailed) -> None:
        super().__init__(stage)
        self.stage, self.cause = stage, cause


@dataclass(frozen=True, slots=True)
class State:
    """The recorded stack, and which of its processes live."""

    stack: Stack
    alive: tuple[Process, ...]

    @property
    def dead(self) -> tuple[Process, ...]:
        return tuple(process for process in self.stack.processes if process not in self.alive)

    @property
    def up(self) -> bool:
        return self.stack.complete and not self.dead


def look(home: Home) -> State | None:
    """None if no stack is recorded."""
    stack = Stack.load(home.record)
    if stack is None:
        return None
    return State(stack, tuple(process for process in stack.processes if find(process)))


def up(wish: Wish, home: Home, env: Mapping[str, str], report: Report) -> tuple[Stack, bool]:
    """The running stack, and whether this call started it. Raises Refused, NoSuchModel, BringUpFailed."""
    home.make()
    with _alone(home), _terminable(), Ports() as ports:
        if there := _already(wish, home, report):
            return there, False
        run = _prepare(wish, home, env, ports)
        report.line(f"Bringing up {run.choice.name} on {run.choice.why}.")
        try:
            _climb(run, report)
        except BaseException:
            report.line("Stopping what was started.")
            _stop(home, run.stack)
            raise
        return run.stack, True


def _climb(run: Run, report: Report) -> None:
    for name, stage in STAGES:
        try:
            with report.stage(name) as shown:
                stage(run, shown)
        except StageFailed as cause:
            raise BringUpFailed(name, cause) from cause
    run.stack.complete = True
    run.stack.save(run.home.record)


def _already(wish: Wish, home: Home, report: Report) -> Stack | None:
    state = look(home)
    if state is None:
        return None
    if not state.alive:
        report.line("An earlier stack is gone (a restart of the machine?); starting anew.")
        _stop(home, state.stack)
        return None
    if not state.up:
        dead = ", ".join(process.name for process in state.dead) or "its bring-up was cut off"
        raise Refused(f"a stack is recorded but not whole ({dead}): run `headrace down`, then `headrace up`")
    other_model = wish.model not in (None, state.stack.asked_model, state.stack.model)
    if other_model or wish.engine not in (None, state.stack.engine):
        runs = f"{state.stack.model} on {state.stack.engine}"
        raise Refused(f"a stack with {runs} is up: run `headrace down` before another is brought up")
    return state.stack


def _prepare(wish: Wish, home: Home, env: Mapping[str, str], ports: Ports) -> Run:
    engine = wish.engine or "vllm"
    choice = model.choose(wish.model, env, home, gpu=engine == "vllm" and bool(readings.gpus()))
    stack = Stack(
        id=secrets.token_hex(8),
        model=choice.name,
        asked_model=wish.model,
        checkpoint=str(choice.checkpoint),
        engine=engine,
    )
    return Run(wish, home, choice, stack, Secrets.kept_in(home.secrets), env, ports)


def down(home: Home) -> list[str]:
    """Ends the recorded stack and says what ended; empty if nothing ran."""
    if not home.root.exists():
        return []
    with _alone(home):
        stack = Stack.load(home.record)
        return [] if stack is None else _stop(home, stack)


def _stop(home: Home, stack: Stack) -> list[str]:
    """The latest first: the gateway ends its turns while the engine and the store still answer."""
    stopped = []
    for process in reversed(stack.processes):
        if end(process, GRACE.get(process.name, 10.0)):
            stopped.append(f"{process.name} (pid {process.pid})")
    if strays := sweep(stack.id):
        stopped.append(f"{strays} stray process{'es' if strays > 1 else ''}")
    if stack.scratch:
        shutil.rmtree(stack.scratch, ignore_errors=True)
    home.record.unlink(missing_ok=True)
    return stopped


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One `up` or `down` at a time; the lock ends with the process that holds it."""
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("another `headrace up` or `headrace down` is at work: wait for it to end") from None
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM takes the way of Ctrl-C: what was started is stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
