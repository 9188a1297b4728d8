"""A model's replicas as the law sees them: demand in turns, replicas that take minutes to run, bounded queues."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cluster.scaling.law import Decision, Memory, Observation, decide
from cluster.scaling.settings import ScalingSettings

SECONDS_OF_A_TURN = 20.0


@dataclass
class World:
    """`demand(now)` turns would run if there were replicas enough. A replica takes `most` turns, gateways hold
    `held_most`, further ones are refused."""

    settings: ScalingSettings
    demand: Callable[[float], float]
    replicas: int = 1
    dead_time: float = 180.0
    period: float = 5.0
    most: float = 1.25
    held_most: float = 1.0
    now: float = 0.0
    turns: float = 0.0
    held: float = 0.0
    starting: list[float] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    @property
    def target(self) -> int:
        return self.replicas + len(self.starting)

    def run(self, seconds: float) -> Iterator[Decision]:
        end = self.now + seconds
        while self.now < end:
            self.now += self.period
            self.replicas += sum(1 for at in self.starting if at <= self.now)
            self.starting = [at for at in self.starting if at > self.now]
            self._flow()
            yield self._decide()

    def _flow(self) -> None:
        """Turns arrive at the rate that keeps `demand` of them running, and end after their time."""
        slots = self.replicas * self.settings.target_turns
        arrived = self.demand(self.now) / SECONDS_OF_A_TURN * self.period
        self.turns -= min(self.turns, slots) / SECONDS_OF_A_TURN * self.period
        waiting = self.held + arrived
        taken = max(0.0, min(waiting, slots * self.most - self.turns))
        self.turns += taken
        self.held = min(waiting - taken, self.held_most * self.settings.target_turns)

    def observations(self) -> list[Observation]:
        share = self.turns / self.replicas if self.replicas else 0.0
        running = min(share, self.settings.target_turns)
        return [Observation(round(running), round(share - running), 0.1)] * self.replicas

    def _decide(self) -> Decision:
        before = self.target
        decision, self.memory = decide(
            self.now, self.observations(), before, round(self.held), self.settings, self.memory
        )
        for _ in range(before, decision.desired):
            self.starting.append(self.now + self.dead_time)
        for _ in range(decision.desired, before):
            if self.starting:
                self.starting.pop()
            else:
                self.replicas -= 1
        return decision
