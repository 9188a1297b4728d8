"""The autoscaler of one model: what Ray Serve knows of its replicas goes to the law, and decisions to everybody."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.scaling.law import Decision, Memory, Observation, decide
from cluster.scaling.settings import ScalingSettings
from cluster.telemetry import names
from cluster.telemetry.export import made

log = logging.getLogger(__name__)

PERIOD_S = 0.5  # between two decisions; Serve asks ten times a second
FIGURES = ("running", "waiting", "kv_use", "queued_tokens")

Samples = Mapping[str, Mapping[Any, Sequence[Any]]]  # of each figure and replica, oldest first


class Board(Protocol):
    """Where held turns are read, and decisions told: `Ledger`."""

    @property
    def held(self) -> int | None: ...

    def kept(self) -> dict[str, Any] | None: ...

    def tell(self, decision: Mapping[str, Any], change: Mapping[str, Any] | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Situation:
    """What Serve says. `target` replicas are asked for, those of `replicas` run; `least` and `most` are its bounds,
    `target_turns` is what is to fill a replica."""

    now: float  # seconds since 1970
    replicas: Sequence[Any]
    samples: Samples
    target: int
    least: int
    most: int
    target_turns: float

    @property
    def settings(self) -> dict[str, float]:
        """Those of the law that may change while replicas run: LIVE."""
        return {
            "min_replicas": self.least,
            "max_replicas": max(1, self.most),
            "target_turns": self.target_turns,
        }


class Scaler:
    """Called by one thread. What it remembers outlives it in what it tells the board."""

    def __init__(
        self,
        model: str,
        settings: ScalingSettings,
        board: Board,
        clock: Callable[[], float] = time.monotonic,
        make: Callable[[names.Metric], Any] = made,
    ) -> None:
        self._model, self._settings, self._board, self._clock = model, settings, board, clock
        self._metrics = {metric: make(metric) for metric in names.SCALING}
        self._memory: Memory | None = None
        self._heard: dict[
            Any, tuple[float, float]
        ] = {}  # of each replica: its last sample's time, and ours then
        self._decided = float("-inf")
        self._desired = 0
        self._because = ""

    def desired(self, now: Situation) -> int:
        """How many replicas to ask for. Between two decisions it is what the last one said."""
        if self._clock() - self._decided < PERIOD_S and now.least <= self._desired <= now.most:
            return self._desired
        self._decided = self._clock()
        held = self._board.held
        if self._memory is None:
            self._memory = remembered(self._board.kept())
        settings = self._settings.model_copy(update=now.settings)
        decision, self._memory = decide(
            now.now, self._observed(now), now.target, held, settings, self._memory
        )
        self._desired = decision.desired
        self._tell(decision, now, held)
        return decision.desired

    def document(self) -> dict[str, Any]:
        return {} if self._memory is None else self._memory.document()

    def _observed(self, now: Situation) -> list[Observation | None]:
        self._heard = {replica: heard for replica, heard in self._heard.items() if replica in now.replicas}
        return [self._observation(replica, now.samples) for replica in now.replicas]

    def _observation(self, replica: Any, samples: Samples) -> Observation | None:
        last = {name: samples.get(name, {}).get(replica, ())[-1:] for name in FIGURES}
        if not all(last.values()):
            return None
        stamp = max(sample.timestamp for [sample] in last.values())
        before, heard = self._heard.get(replica, (None, 0.0))
        # By this process's clock: that of the replica's node may be another.
        heard = heard if stamp == before else self._clock()
        self._heard[replica] = (stamp, heard)
        value = {name: float(sample.value) for name, [sample] in last.items()}
        return Observation(
            int(value["running"]),
            int(value["waiting"]),
            value["kv_use"],
            int(value["queued_tokens"]),
            self._clock() - heard,
        )

    def _tell(self, decision: Decision, now: Situation, held: int | None) -> None:
        told = decision.document() | {"held": held, "target": now.target, "at_ms": round(now.now * 1000)}
        change = None
        if decision.desired != now.target:
            change = told | {"before": now.target, "after": decision.desired}
            words = (self._model, now.target, decision.desired, decision.reason)
            log.info("%s: from %d to %d replicas, because of %s", *words)
        self._board.tell(told | {"model": self._model, "memory": self.document()}, change)
        self._export(decision, now.target)

    def _export(self, decision: Decision, target: int) -> None:
        model, metrics = {"model": self._model}, self._metrics
        metrics[names.DESIRED].set(decision.desired, tags=model)
        metrics[names.CURRENT].set(decision.current, tags=model)
        metrics[names.STALE].set(decision.stale, tags=model)
        for signal, wanted in decision.wanted.items():
            metrics[names.WANTED].set(wanted, tags=model | {"signal": str(signal)})
        because = str(decision.held_because or "")
        if self._because and self._because != because:
            metrics[names.HELD].set(0, tags=model | {"because": self._because})
        if because:
            metrics[names.HELD].set(1, tags=model | {"because": because})
        self._because = because
        if decision.desired != target:
            direction = "up" if decision.desired > target else "down"
            tags = model | {"direction": direction, "reason": str(decision.reason)}
            metrics[names.DECISIONS].inc(1, tags=tags)


def remembered(kept: Mapping[str, Any] | None) -> Memory:
    """What the autoscaler before this one remembered. One of another version may have remembered other things."""
    try:
        return Memory.read(kept["memory"]) if kept else Memory()
    except (KeyError, TypeError, ValueError) as error:
        log.warning("the memory of the autoscaler before this one cannot be read: %s", type(error).__name__)
        return Memory()
