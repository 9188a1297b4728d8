"""All replicas of a model and the gateways before them: who starts, who gets a turn, who waits and who is refused."""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.scaling.law import Observation
from cluster.scaling.simulation.histogram import Histogram
from cluster.scaling.simulation.replicas import DRAWN_STEPS, Group, Kind

ALIKE = 0.03  # of a replica's capacity: groups no further apart become one
WARM_S = 10.0  # a new replica's share grows from a tenth to the whole, as the router lets it
COLD = 0.1
SPILL = 1.25  # of the mean, before the router looks elsewhere
LATELY = 10.0  # seconds for which a refused turn counts as held


@dataclass(frozen=True, slots=True)
class Gateways:
    """`hold` turns wait in them at most, and none longer than `patience` seconds."""

    hold: int
    patience: float


@dataclass(slots=True)
class Starting:
    at: float
    replicas: int


@dataclass(slots=True)
class Fleet:
    kind: Kind
    gateways: Gateways
    rng: random.Random
    groups: list[Group] = field(default_factory=list)
    starting: list[Starting] = field(default_factory=list)
    queue: deque[list[float]] = field(default_factory=deque)  # [since, turns] of those that gateways hold
    refusals: deque[tuple[float, float]] = field(default_factory=deque)
    first_tokens: Histogram = field(default_factory=Histogram)
    step_times: Histogram = field(default_factory=Histogram)
    arrived: float = 0.0
    refused: float = 0.0
    held: float = 0.0

    @property
    def running(self) -> int:
        return sum(group.replicas for group in self.groups)

    @property
    def target(self) -> int:
        return self.running + sum(each.replicas for each in self.starting)

    def start(self, replicas: int, at: float) -> None:
        """They run from `at` on."""
        self.starting.append(Starting(at, replicas))

    def stop(self, replicas: int) -> None:
        """Those that load first, then the youngest; their turns go on elsewhere or end within the drain."""
        youngest: list[Starting | Group] = [*self.starting[::-1], *self.groups[::-1]]
        for each in youngest:
            taken = min(replicas, each.replicas)
            each.replicas -= taken
            replicas -= taken
        self.starting = [each for each in self.starting if each.replicas]
        self.groups = [each for each in self.groups if each.replicas]

    def tick(self, now: float, seconds: float, arrived: int) -> None:
        self._begin(now)
        self.arrived += arrived
        if arrived:
            self.queue.append([now, arrived])
        ahead = [group.wait() for group in self.groups]
        waits = self._admit(now, seconds)
        for group, wait in zip(self.groups, ahead, strict=True):
            self._note(group, wait, waits, seconds)
            group.flow(seconds)
        self._refuse(now)
        self._merge(now)

    def observations(self, age_s: float) -> list[Observation]:
        return [each for group in self.groups for each in [group.observation(age_s)] * group.replicas]

    def held_turns(self, now: float) -> int:
        """Those that wait, and those refused lately."""
        while self.refusals and self.refusals[0][0] < now - LATELY:
            self.refusals.popleft()
        waiting = sum(turns for _, turns in self.queue)
        return round(waiting + sum(turns for _, turns in self.refusals))

    def _begin(self, now: float) -> None:
        for each in self.starting:
            if each.at <= now:
                self.groups.append(
                    Group(self.kind, each.replicas, now, [0.0] * len(self.kind.lengths.answers))
                )
        self.starting = [each for each in self.starting if each.at > now]

    def _admit(self, now: float, seconds: float) -> list[tuple[float, float]]:
        """Give queued turns to replicas, the oldest first; returns (seconds held, turns) of those that got one."""
        room = sum(group.replicas * (self.kind.capacity - group.turns) for group in self.groups)
        left = taken = min(max(0.0, room), sum(turns for _, turns in self.queue))
        waits = []
        while left > 0 and self.queue:
            since, turns = self.queue[0]
            part = min(left, turns)
            waits.append((now - since, part))
            self.held += part if since < now else 0.0
            left -= part
            self.queue[0][1] -= part
            if self.queue[0][1] <= 0:
                self.queue.popleft()
        self._route(now, seconds, taken)
        return waits

    def _route(self, now: float, seconds: float, turns: float) -> None:
        """To the least loaded, within the router's bounds; what those leave goes where there is room."""
        mean = (sum(group.turns * group.replicas for group in self.groups) + turns) / max(1, self.running)
        for group in self.groups:
            group.arriving = 0.0
        for bounds in (self._bounds(now, mean), [float(self.kind.capacity)] * len(self.groups)):
            turns -= self._fill(turns, bounds, seconds)

    def _bounds(self, now: float, mean: float) -> list[float]:
        warmth = [min(1.0, COLD + (now - group.born) / WARM_S) for group in self.groups]
        return [min(self.kind.capacity, SPILL * mean * each) for each in warmth]

    def _fill(self, turns: float, bounds: list[float], seconds: float) -> float:
        """Level the groups up to one height, each up to its bound; returns how many turns that took."""
        low, high = 0.0, float(self.kind.capacity)
        for _ in range(30):
            height = (low + high) / 2
            if sum(self._lacking(bounds, height)) > turns:
                high = height
            else:
                low = height
        given = list(self._lacking(bounds, low))
        for group, more in zip(self.groups, given, strict=True):
            group.line += more / group.replicas
            group.backlog += more / group.replicas * self.kind.lengths.prompt_mean
            group.arriving += more / group.replicas / seconds
        return sum(given)

    def _lacking(self, bounds: list[float], height: float) -> Iterator[float]:
        for group, bound in zip(self.groups, bounds, strict=True):
            yield group.replicas * max(0.0, min(height, bound) - group.turns)

    def _note(self, group: Group, ahead: float, waits: list[tuple[float, float]], seconds: float) -> None:
        """Seconds to the first token of what came in this tick, `ahead` of which a replica has work."""
        times = group.chain(self.rng)
        weight = group.replicas * seconds / (DRAWN_STEPS * group.mean_step())
        self.step_times.add(group.mean_step(), sum(group.decoding) * group.replicas * seconds)
        total = sum(turns for _, turns in waits) or 1.0
        for time in times:
            for held, turns in waits:
                self.first_tokens.add(held + ahead + time, weight * turns / total)

    def _refuse(self, now: float) -> None:
        refused = 0.0
        while self.queue and now - self.queue[0][0] >= self.gateways.patience:
            refused += self.queue.popleft()[1]
        excess = sum(turns for _, turns in self.queue) - self.gateways.hold
        while excess > 0 and self.queue:
            # The latest find the gateways full.
            part = min(excess, self.queue[-1][1])
            refused, excess = refused + part, excess - part
            self.queue[-1][1] -= part
            if self.queue[-1][1] <= 0:
                self.queue.pop()
        if refused:
            self.refused += refused
            self.refusals.append((now, refused))

    def _merge(self, now: float) -> None:
        """Groups that are warm and alike become one; the state of the younger one is in the mean."""
        kept: list[Group] = []
        for group in self.groups:
            same = next((each for each in kept if self._alike(each, group, now)), None)
            if same is None:
                kept.append(group)
            else:
                _join(same, group)
        self.groups = kept

    def _alike(self, one: Group, other: Group, now: float) -> bool:
        warm = now - max(one.born, other.born) >= WARM_S
        return warm and abs(one.turns - other.turns) <= ALIKE * self.kind.capacity


def _join(group: Group, other: Group) -> None:
    share = other.replicas / (group.replicas + other.replicas)
    group.decoding = [a + (b - a) * share for a, b in zip(group.decoding, other.decoding, strict=True)]
    group.line += (other.line - group.line) * share
    group.backlog += (other.backlog - group.backlog) * share
    group.arriving += (other.arriving - group.arriving) * share
    group.replicas += other.replicas
