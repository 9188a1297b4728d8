"""A gateway worker without supervisor that can be made to die at a chosen instant of a turn.

`python -m tests.faults.gateway`. It is the product's worker; this process alone wraps the functions that the instants
lie between. It says `serving` once it does, and obeys

    arm INSTANT    the first turn that begins from now on and gets there takes the process along (SIGKILL)
    hold CALL      the next one, as `module:Class.method`, says `held CALL` and waits for `go`
    block SECONDS  the event loop stands still
    ledger         what it holds and what it counted, as JSON

FAULT_CLOCK sets its wall clock so many seconds ahead.
"""

import asyncio
import functools
import importlib
import json
import os
import signal
import sys
import time
from typing import Any

from services.core.clock import SystemClock
from services.gateway import pipeline, worker
from services.gateway.admission import Admission
from services.gateway.deps import Deps
from services.gateway.generation import Generation
from services.gateway.settings import GatewaySettings
from services.gateway.turn import Turn
from services.gateway.turns import Turns
from services.telemetry import metrics
from tests.faults.talk import obey, say

KTH = 7  # tokens

# Each stage is entered when the one before it is done: "after claim" lies before the slot is taken.
STAGES: dict[str, tuple[Any, str]] = {
    "before claim": (pipeline, "claim"),
    "after claim": (Admission, "slot"),
    "after reserve": (pipeline, "remembered"),
    "after remember": (pipeline, "prepare"),
    "after store": (pipeline, "generate"),
    "before settle": (pipeline, "settle"),
}
# The nine of the fault matrix, and the moment at which the store knows of a turn that has no event yet.
INSTANTS = (
    "before claim",
    "after claim",
    "after reserve",
    "after remember",
    "after store",
    "first token",
    "k-th token",
    "last token",
    "before settle",
    "after settle",
)

armed = ""
victim: Generation | None = None
deps: Deps | None = None
admitted = 0
going = asyncio.Event()
worst_lag = 0.0  # seconds, as the gauge of the metrics was told


def arm(instant: str) -> None:
    global armed, victim
    armed, victim = instant, None
    say("arm", instant)


def at(instant: str) -> None:
    """The instant; the process ends here if it is the one that was chosen."""
    if instant == armed:
        say("killed", instant)
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, instant: str) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **fields: Any) -> Any:
        at(instant)
        return original(*args, **fields)

    setattr(owner, name, wrapped)


def hold(call: str) -> None:
    module, _, name = call.partition(":")
    kind, _, method = name.partition(".")
    owner = getattr(importlib.import_module(module), kind)
    original = getattr(owner, method)

    async def held(*args: Any, **fields: Any) -> Any:
        setattr(owner, method, original)
        going.clear()
        say("held", call)
        await going.wait()
        return await original(*args, **fields)

    setattr(owner, method, held)
    say("hold", call)


def watch_tokens() -> None:
    """Tokens count for the first answer that begins once armed: others are at instants of their own."""
    init, tokens, ended = Generation.__init__, Generation.tokens, Generation.ended

    def begun(self: Generation, *args: Any, **fields: Any) -> None:
        global victim
        init(self, *args, **fields)
        if armed and victim is None:
            victim = self

    def told(self: Generation, ids: Any) -> None:
        if self is victim:
            before = len(self.sampled)
            if before == 0:
                at("first token")
            if before < KTH <= before + len(ids):
                at("k-th token")
        tokens(self, ids)

    def over(self: Generation, *args: Any) -> None:
        if self is victim:
            at("last token")
        ended(self, *args)

    Generation.__init__, Generation.tokens, Generation.ended = begun, told, over  # type: ignore[method-assign]


def watch_settle() -> None:
    settle = pipeline.settle

    async def settled(*args: Any, **fields: Any) -> None:
        await settle(*args, **fields)
        at("after settle")

    pipeline.settle = settled


def watch_admission() -> None:
    """Counts turns begun here, less those that left without an ending: another gateway's count has them."""
    start, leave = Turns.start, Turn.leave

    def started(self: Turns, turn: Turn, work: Any) -> None:
        global admitted
        admitted += 1
        start(self, turn, work)

    def left(self: Turn, *args: Any) -> None:
        global admitted
        admitted -= self.outcome is None
        leave(self, *args)

    Turns.start, Turn.leave = started, left  # type: ignore[method-assign]


def watch_lag() -> None:
    gauge = metrics.LOOP_LAG
    told = gauge.set

    def lagged(seconds: float) -> None:
        global worst_lag
        worst_lag = max(worst_lag, seconds)
        told(seconds)

    gauge.set = lagged  # type: ignore[method-assign]


def set_clock(ahead: float) -> None:
    now = SystemClock.now
    SystemClock.now = lambda self: now(self) + ahead  # type: ignore[method-assign]


def block(seconds: str) -> None:
    time.sleep(float(seconds))
    say("block", seconds)


def ledger() -> None:
    assert deps is not None
    outcomes = {
        sample.labels["outcome"]: sample.value
        for metric in metrics.TURNS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    held = {
        "slots": deps.admission.held,
        "turns": len(deps.turns),
        "events unsaved": deps.recorder.lag,
        **{f"orders at {link.lease.replica}": len(link._sinks) for link in deps.directory.links()},
    }
    tasks = len(deps.tasks)
    told = {"held": held, "admitted": admitted, "outcomes": outcomes, "lag": worst_lag, "tasks": tasks}
    say("ledger", json.dumps(told))


def watch_worker() -> None:
    build, beat, serve = worker.build, worker.beat, worker.serve

    def built(*args: Any, **fields: Any) -> Deps:
        global deps
        deps = build(*args, **fields)
        return deps

    async def beating(*args: Any) -> None:
        say("serving")
        await beat(*args)

    async def serving(settings: GatewaySettings, pipe: int) -> None:
        obey({"arm": arm, "hold": hold, "go": going.set, "block": block, "ledger": ledger})
        await serve(settings, pipe)

    worker.build, worker.beat, worker.serve = built, beating, serving


def main() -> None:
    for instant, (owner, name) in STAGES.items():
        before(owner, name, instant)
    watch_settle()
    watch_admission()
    watch_tokens()
    watch_lag()
    watch_worker()
    set_clock(float(os.environ.get("FAULT_CLOCK", "0")))
    reads, writes = os.pipe()  # the supervisor's end stays open and unread: a byte a second
    sys.argv[1:] = [str(writes)]
    worker.main()
    os.close(reads)


if __name__ == "__main__":
    main()
