"""What one setting does to the day, others as they are: a row for each value, the mean of several days."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.scaling.settings import ScalingSettings
from cluster.scaling.simulation.day import Outcome, World, mean, simulate
from cluster.scaling.simulation.policies import Law
from cluster.scaling.simulation.speeds import Speed

VALUES: dict[str, tuple[float, ...]] = {
    "target_turns": (32, 64, 96, 128, 160, 192, 224),
    "ttft_budget_seconds": (0.5, 1, 2, 4, 8),
    "kv_target": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "upscale_delay_seconds": (0, 10, 20, 30, 60, 120),
    "downscale_delay_seconds": (60, 300, 600, 900, 1800),
    "downscale_step_seconds": (10, 30, 60, 120, 300),
    "up_at": (0.75, 0.8, 0.85, 0.9, 1.0),
    "down_at": (0.5, 0.6, 0.7, 0.75, 0.8),
    "growth": (1.25, 1.5, 2, 3, 4),
    "cold_start_seconds": (30, 60, 120, 180, 300, 420),
}


@dataclass(frozen=True, slots=True)
class Row:
    value: float
    outcome: Outcome


def sweep(
    name: str, values: Sequence[float], world: World, speed: Speed, law: ScalingSettings, days: int
) -> Iterator[Row]:
    """Turns are in budget by the TTFT budget of `law`, whatever value the law works with. Raises ValidationError."""
    for value in values:
        made = [_day(name, value, world, speed, law, seed) for seed in range(days)]
        yield Row(value, mean(made))


def _day(name: str, value: float, world: World, speed: Speed, law: ScalingSettings, seed: int) -> Outcome:
    changed = {"seed": world.seed + seed} | ({name: value} if name in World.model_fields else {})
    swept = law.model_dump() | ({name: value} if name in ScalingSettings.model_fields else {})
    policy = Law(ScalingSettings.model_validate(swept))
    return simulate(policy, World.model_validate(world.model_dump() | changed), speed, law)
