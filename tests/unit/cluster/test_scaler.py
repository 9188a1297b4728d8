"""From what Serve knows to the law, and from its decisions to whoever wants to see them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.scaling.settings import LIVE, ScalingSettings
from cluster.serving.scaler import PERIOD_S, Scaler, Situation
from cluster.telemetry.names import Metric
from tests.support.clock import FakeClock

SETTINGS = ScalingSettings(
    min_replicas=0,
    max_replicas=4,
    target_turns=10,
    upscale_delay_seconds=2,
    downscale_delay_seconds=4,
    downscale_to_zero_delay_seconds=6,
    stale_after_seconds=3,
)


@dataclass(slots=True)
class Sample:
    timestamp: float
    value: float


@dataclass(slots=True)
class Noted:
    """A board that remembers what it was told."""

    held: int | None = 0
    last: dict[str, Any] | None = None
    changes: list[Mapping[str, Any]] = field(default_factory=list)

    def kept(self) -> dict[str, Any] | None:
        return self.last

    def tell(self, decision: Mapping[str, Any], change: Mapping[str, Any] | None) -> None:
        self.last = json.loads(json.dumps(decision))
        self.changes += [change] if change else []


class Figures:
    """Ray's metrics: the last value for each name and its labels."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def __call__(self, metric: Metric) -> "Series":
        return Series(metric.name, self.values)


@dataclass(slots=True)
class Series:
    name: str
    values: dict[tuple[str, ...], float]

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        self.values[self.name, *tags.values()] = value

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        key = (self.name, *tags.values())
        self.values[key] = self.values.get(key, 0) + value


class Serve:
    """As Serve's controller: asks again and again, and has at once what it is told."""

    def __init__(self, board: Noted, clock: FakeClock, target: int = 1) -> None:
        self.board, self.clock, self.target, self.figures = board, clock, target, Figures()
        self.samples: dict[str, dict[str, list[Sample]]] = {}
        self.most, self.target_turns = SETTINGS.max_replicas, SETTINGS.target_turns
        self.restart()

    def restart(self) -> None:
        self.scaler = Scaler("m", SETTINGS, self.board, self.clock.monotonic, self.figures)

    def load(self, replica: str, skew: float = 0.0, **figures: float) -> None:
        stamp = self.clock.now() + skew
        for name in ("running", "waiting", "kv_use", "queued_tokens"):
            sample = Sample(stamp, figures.get(name, 0.0))
            self.samples.setdefault(name, {}).setdefault(replica, []).append(sample)

    def ask(self) -> int:
        self.clock.advance(PERIOD_S)
        replicas = [f"r{i}" for i in range(self.target)]
        self.target = self.scaler.desired(self.situation(replicas))
        return self.target

    def situation(self, replicas: list[str]) -> Situation:
        return Situation(
            self.clock.now(), replicas, self.samples, self.target, 0, self.most, self.target_turns
        )

    def after(self, seconds: float, skew: float = 0.0, **figures: float) -> int:
        for _ in range(round(seconds / PERIOD_S)):
            for i in range(self.target):
                self.load(f"r{i}", skew, **figures)
            self.ask()
        return self.target


def test_load_asks_for_more_and_says_which_signal_it_was() -> None:
    serve = Serve(board := Noted(), FakeClock())
    assert serve.after(4, running=30) == 2
    [change] = board.changes
    assert (change["before"], change["after"], change["reason"], change["wanted"]["turns"]) == (
        1,
        2,
        "turns",
        3.0,
    )
    assert serve.figures.values["headrace_scaling_decisions_total", "m", "up", "turns"] == 1
    assert serve.figures.values["headrace_scaling_desired", "m"] == 2


def test_the_clock_of_a_replicas_node_makes_nothing_old_or_new() -> None:
    for skew in (-3600.0, 3600.0):
        serve = Serve(board := Noted(), FakeClock())
        assert serve.after(4, skew=skew, running=30) == 2
        assert board.last is not None and board.last["stale"] == 0


def test_a_replica_that_falls_silent_removes_nobody() -> None:
    serve = Serve(board := Noted(), FakeClock(), target=2)
    serve.after(1, running=1)
    for _ in range(60):
        serve.load("r0", running=0)
        serve.ask()
    assert serve.target == 2 and board.last is not None
    assert (board.last["held_because"], board.last["stale"]) == ("missing", 1)
    assert serve.figures.values["headrace_scaling_held", "m", "missing"] == 1
    assert serve.after(5.5) == 1
    assert serve.figures.values["headrace_scaling_held", "m", "missing"] == 0


def test_unknown_held_turns_remove_nobody_and_wake_nobody() -> None:
    board = Noted(held=None)
    assert Serve(board, FakeClock()).after(30) == 1
    assert board.changes == [] and board.last is not None and board.last["held_because"] == "missing"
    assert Serve(board, FakeClock(), target=0).after(5) == 0


def test_an_idle_model_sleeps_and_held_turns_wake_it_at_once() -> None:
    serve = Serve(board := Noted(), FakeClock())
    assert serve.after(8) == 0
    board.held = 3
    assert serve.ask() == 1
    assert [change["reason"] for change in board.changes] == ["idle", "wake"]


def test_a_restarted_controller_goes_on_where_the_last_one_was() -> None:
    """Half of the delay before it, half of it after."""
    serve = Serve(Noted(), FakeClock())
    assert serve.after(1.5, running=30) == 1
    serve.restart()
    assert serve.after(1.0, running=30) == 2


def test_a_memory_of_another_version_is_no_reason_to_fail() -> None:
    for memory in ({}, {"lows": 3}, {"other": 1}):
        board = Noted(last={"memory": memory})
        assert Serve(board, FakeClock()).after(4, running=30) == 2


def test_serves_bounds_are_kept_whatever_the_settings_say() -> None:
    serve = Serve(Noted(), FakeClock(), target=3)
    serve.most = 2
    assert serve.scaler.desired(serve.situation([])) == 2


def test_another_target_holds_from_the_next_decision_on_and_the_memory_stays() -> None:
    serve = Serve(board := Noted(), FakeClock())
    assert serve.after(4, running=8) == 1
    serve.target_turns = 5
    assert serve.after(4, running=8) == 2
    assert board.changes[-1]["reason"] == "turns"


def test_a_situation_tells_all_that_may_change_while_replicas_run_and_nothing_else() -> None:
    told = Serve(Noted(), FakeClock()).situation([]).settings
    assert told.keys() == LIVE
