"""The law, and what else people scale replicas by, behind one verb."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.scaling.law import Decision, Memory, Observation, decide
from cluster.scaling.settings import ScalingSettings
from cluster.scaling.window import Window

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
class Proportional:
    """ceil(load), up after `up_delay` in which more was wanted throughout, down to the most of `down_delay`."""

    name: str
    load: Load
    least: int
    most: int
    up_delay: float
    down_delay: float
    tolerance: float = 0.0
    lows: Window = field(default_factory=Window)
    highs: Window = field(default_factory=Window)

    def desired(self, now: float, observations: Sequence[Observation], target: int, held: int) -> int:
        load = self.load(observations)
        wanted = min(max(math.ceil(load), self.least), self.most)
        if target and abs(load / target - 1) <= self.tolerance:
            wanted = target
        self.lows = self.lows.seen(now, wanted, self.up_delay, min)
        self.highs = self.highs.seen(now, wanted, self.down_delay, max)
        if self.lows.covers(now, self.up_delay) and (up := int(min(self.lows.values()))) > target:
            return up
        if self.highs.covers(now, self.down_delay) and (down := int(max(self.highs.values()))) < target:
            return down
        return target


def policies(law: ScalingSettings, peak: int) -> list[Policy]:
    """The law with `law`, and the others with its bounds. `peak` replicas hold the busiest time."""
    least, most = max(1, law.min_replicas), law.max_replicas

    def requests(observations: Sequence[Observation]) -> float:
        return sum(each.running + each.waiting for each in observations) / law.target_turns

    def busy(observations: Sequence[Observation]) -> float:
        # An engine with one turn keeps its GPU, and a core, as busy as one with many.
        return sum(1.0 if each.running else 0.0 for each in observations) / 0.7

    def cache(observations: Sequence[Observation]) -> float:
        return sum(each.kv_use for each in observations) / law.kv_target

    return [
        Law(law),
        Static(min(peak, most)),
        # Serve: delays of 30 and 600 s, the count of what replicas hold; an HPA: 15 s, 300 s, tolerance of a tenth.
        Proportional("serve-requests", requests, least, most, 30.0, 600.0),
        Proportional("cpu", busy, least, most, 15.0, 300.0, 0.1),
        Proportional("kv-only", cache, least, most, 15.0, 300.0, 0.1),
    ]
