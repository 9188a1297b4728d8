"""The law, and what else people scale replicas by, behind one verb."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.scaling.law import Decision, Memory, Observation, decide
from cluster.scaling.settings import ScalingSettings
from cluster.scaling.window import Window

HPA_PERIOD = 15.0  # seconds

Load = Callable[[Sequence[Observation]], float]


class Policy(Protocol):
    name: str

    def desired(self, now: float, observations: Sequence[Observation], target: int, held: int) -> int: ...


@dataclass(slots=True)
class Law:
    """Headrace's own."""

    settings: ScalingSettings
    name: str = "headrace"
    memory: Memory = field(default_factory=Memory)
    last: Decision | None = None

    def desired(self, now: float, observations: Sequence[Observation], target: int, held: int) -> int:
        self.last, self.memory = decide(now, observations, target, held, self.settings, self.memory)
        return self.last.desired


@dataclass(slots=True)
class Static:
    """As many as the busiest time needs, all day."""

    replicas: int
    name: str = "static"

    def desired(self, now: float, observations: Sequence[Observation], target: int, held: int) -> int:
        return self.replicas


@dataclass(slots=True)
class Serve:
    """Ray Serve's own law, with its defaults: turns that replicas hold, in the mean of `look_back` seconds, by
    `target_turns`; it moves to what is wanted at the moment, once the same direction was wanted for the delay."""

    target_turns: float
    least: int
    most: int
    name: str = "serve-requests"
    look_back: float = 30.0
    up_delay: float = 30.0
    down_delay: float = 600.0
    counts: deque[tuple[float, float]] = field(default_factory=deque)
    direction: int = 0
    since: float = 0.0

    def desired(self, now: float, observations: Sequence[Observation], target: int, held: int) -> int:
        self.counts.append((now, float(sum(each.running + each.waiting for each in observations))))
        while self.counts[0][0] < now - self.look_back:
            self.counts.popleft()
        mean = sum(count for _, count in self.counts) / len(self.counts)
        wanted = min(max(math.ceil(mean / self.target_turns), self.least), self.most)
        direction = (wanted > target) - (wanted < target)
        if direction != self.direction:
            self.direction, self.since = direction, now
        delay = self.up_delay if direction > 0 else self.down_delay
        if not direction or now - self.since < delay:
            return target
        self.direction = 0
        return wanted


@dataclass(slots=True)
class Hpa:
    """Kubernetes' horizontal autoscaler with its defaults, of a `load` in replicas: no change within `tolerance`, up at
    once and at most twofold in 15 s, down to the most of `stabilization` seconds."""

    name: str
    load: Load
    least: int
    most: int
    stabilization: float = 300.0
    tolerance: float = 0.1
    highs: Window = field(default_factory=Window)
    raised_at: float = -math.inf

    def desired(self, now: float, observations: Sequence[Observation], target: int, held: int) -> int:
        load = self.load(observations)
        wanted = min(max(math.ceil(load), self.least), self.most)
        if target and abs(load / target - 1) <= self.tolerance:
            wanted = target
        self.highs = self.highs.seen(now, wanted, self.stabilization, max)
        if wanted > target and now - self.raised_at >= HPA_PERIOD:
            self.raised_at = now
            return min(wanted, max(4, 2 * target))
        return min(target, int(max(self.highs.values()))) if self._calm(now) else target

    def _calm(self, now: float) -> bool:
        return self.highs.covers(now, self.stabilization)


def policies(law: ScalingSettings, peak: int) -> list[Policy]:
    """The law with `law`, and the others with its bounds. `peak` replicas hold the busiest time."""
    least, most = max(1, law.min_replicas), law.max_replicas

    def busy(observations: Sequence[Observation]) -> float:
        # An engine with one turn keeps its GPU, and a core, as busy as one with many.
        return sum(1.0 if each.running else 0.0 for each in observations) / 0.7

    def cache(observations: Sequence[Observation]) -> float:
        return sum(each.kv_use for each in observations) / law.kv_target

    return [
        Law(law),
        Static(min(peak, most)),
        Serve(law.target_turns, least, most),
        Hpa("cpu", busy, least, most),
        Hpa("kv-only", cache, least, most),
    ]
