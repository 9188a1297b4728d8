"""One day, or a part of one, with each policy: the same traffic, a virtual clock, and what became of it."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cluster.scaling.settings import ScalingSettings
from cluster.scaling.simulation.fleet import Fleet, Gateways
from cluster.scaling.simulation.policies import Policy
from cluster.scaling.simulation.replicas import Kind
from cluster.scaling.simulation.speeds import Speed
from cluster.scaling.simulation.traffic import HOUR, Burst, Lengths, bursts, level, poisson

TICK = 2.0  # seconds
LOOK = 10.0  # seconds between two decisions; Serve pushes statistics as often
POINTS = 480  # of a plot
WHOLE = ("peak_replicas", "raised", "lowered")


class World(BaseModel):
    """What the policies have to cope with. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hours: float = Field(24.0, ge=0.1, le=168, description="of traffic; it begins at midnight")
    seed: int = Field(1, ge=0, le=2**32 - 1)
    peak: float = Field(0.5, ge=0.01, le=2, description="share of all GPUs' throughput in the busiest hour")
    cold_start_seconds: float = Field(
        180.0, ge=0, le=3600, description="until a new replica runs, within 20 %"
    )
    capacity: int = Field(256, ge=1, le=4096, description="turns that a replica accepts")
    hold: int = Field(256, ge=0, le=100_000, description="turns that gateways hold for each GPU, at most")
    patience_seconds: float = Field(30.0, ge=0, le=600, description="a held turn is refused after so long")
    prompt_median: float = Field(
        600, ge=1, le=32_768, description="tokens of a prompt; the mean is twice that"
    )
    answer_mean: float = Field(
        542.5, ge=1, le=32_768, description="tokens of an answer; half have a quarter of it"
    )
    drain_seconds: float = Field(30.0, ge=0, le=3600, description="a removed replica keeps its GPUs so long")

    @property
    def lengths(self) -> Lengths:
        usual = Lengths()
        scale = self.answer_mean / usual.answer_mean
        answers = tuple((share, mean * scale) for share, mean in usual.answers)
        return Lengths(prompt_median=self.prompt_median, answers=answers)

    def kind(self, speed: Speed) -> Kind:
        return Kind(speed.timing, self.lengths, self.capacity)


@dataclass(frozen=True, slots=True)
class Moment:
    """For the plot: hours, turns per second, replicas asked for and running, turns held."""

    hour: float
    rate: float
    target: int
    running: int
    held: int


@dataclass(slots=True)
class Outcome:
    """`in_budget` and `available` are shares of all turns; times are seconds; `held` turns got a replica late."""

    policy: str
    in_budget: float = 0.0
    available: float = 0.0
    ttft_p50: float = 0.0
    ttft_p95: float = 0.0
    ttft_p99: float = 0.0
    token_p95: float = 0.0
    gpu_hours: float = 0.0
    peak_replicas: int = 0
    raised: int = 0
    lowered: int = 0
    turns: float = 0.0
    held: float = 0.0
    refused: float = 0.0
    course: list[Moment] = field(default_factory=list, repr=False)

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "course"}


def mean(days: Sequence[Outcome]) -> Outcome:
    """Of days with the same policy; the peak is the highest, the course that of the first."""
    made = Outcome(days[0].policy, course=days[0].course)
    for each in fields(Outcome):
        if each.name not in ("policy", "course"):
            value = sum(getattr(day, each.name) for day in days) / len(days)
            setattr(made, each.name, round(value) if each.name in WHOLE else value)
    made.peak_replicas = max(day.peak_replicas for day in days)
    return made


@dataclass(frozen=True, slots=True)
class Traffic:
    """Turns per second in the busiest hour without bursts, and the bursts."""

    rate: float
    bursts: Sequence[Burst]

    def at(self, now: float) -> float:
        return self.rate * level(now, self.bursts)

    def most(self, hours: float) -> float:
        return max(self.at(now) for now in range(0, int(hours * HOUR), 20))


def traffic(world: World, speed: Speed) -> Traffic:
    rate = world.peak * speed.most * world.kind(speed).throughput(world.capacity)
    return Traffic(rate, bursts(world.hours, random.Random(world.seed)))  # noqa: S311


def peak_replicas(world: World, speed: Speed, law: ScalingSettings) -> int:
    """As many as hold the busiest time at `target_turns` each."""
    most = traffic(world, speed).most(world.hours)
    return max(1, math.ceil(most / world.kind(speed).throughput(law.target_turns)))


def simulate(policy: Policy, world: World, speed: Speed, law: ScalingSettings) -> Outcome:
    """What `policy` makes of the day. The same arguments give the same outcome."""
    load = traffic(world, speed)
    rng = random.Random(world.seed + 1)  # noqa: S311
    gateways = Gateways(world.hold * speed.gpus * speed.most, world.patience_seconds)
    run = _Run(policy, world, speed, Fleet(world.kind(speed), gateways, rng), Outcome(policy.name))
    run.begin(load.at(0.0), law)
    for index in range(int(world.hours * HOUR / TICK)):
        run.tick(index, load)
    return run.end(law)


@dataclass(slots=True)
class _Run:
    policy: Policy
    world: World
    speed: Speed
    fleet: Fleet
    outcome: Outcome

    def begin(self, rate: float, law: ScalingSettings) -> None:
        """With as many replicas as midnight needs; a policy that is not for so few corrects that."""
        needed = math.ceil(rate / self.fleet.kind.throughput(law.target_turns) / law.up_at)
        self.fleet.start(self.policy.desired(-LOOK, [], min(max(needed, 1), law.max_replicas), 0), 0.0)

    def tick(self, index: int, load: Traffic) -> None:
        now, fleet = index * TICK, self.fleet
        rate = load.at(now)
        fleet.tick(now, TICK, poisson(rate * TICK, fleet.rng))
        if index % int(LOOK / TICK) == 0:
            self._decide(now)
        self.outcome.gpu_hours += fleet.target * self.speed.gpus * TICK / HOUR
        if index % max(1, int(self.world.hours * HOUR / TICK / POINTS)) == 0:
            held = fleet.held_turns(now)
            self.outcome.course.append(Moment(now / HOUR, rate, fleet.target, fleet.running, held))

    def _decide(self, now: float) -> None:
        fleet, outcome, target = self.fleet, self.outcome, self.fleet.target
        desired = self.policy.desired(now, fleet.observations(0.0), target, fleet.held_turns(now))
        if desired > target:
            fleet.start(desired - target, now + self.world.cold_start_seconds * fleet.rng.uniform(0.8, 1.2))
            outcome.raised += 1
        elif desired < target:
            fleet.stop(target - desired)
            outcome.lowered += 1
            outcome.gpu_hours += (target - desired) * self.speed.gpus * self.world.drain_seconds / HOUR
        outcome.peak_replicas = max(outcome.peak_replicas, desired)

    def end(self, law: ScalingSettings) -> Outcome:
        fleet, outcome = self.fleet, self.outcome
        times = fleet.first_tokens
        outcome.turns, outcome.held, outcome.refused = fleet.arrived, fleet.held, fleet.refused
        served = 1 - fleet.refused / fleet.arrived if fleet.arrived else 1.0
        outcome.available = served
        outcome.in_budget = served * times.below(law.ttft_budget_seconds)
        outcome.ttft_p50, outcome.ttft_p95, outcome.ttft_p99 = map(times.quantile, (0.5, 0.95, 0.99))
        outcome.token_p95 = fleet.step_times.quantile(0.95)
        return outcome
