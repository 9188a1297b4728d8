"""A day of generated traffic: Poisson arrivals whose rate follows the day, with bursts; lengths with heavy tails."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

HOUR = 3600.0
DAY = 24 * HOUR
BUSIEST = 14 * HOUR
NIGHT = 0.15  # of the busiest hour's rate
STEEP = 1.5
BURSTS_PER_HOUR = 0.7
LONGEST_PROMPT = 32_768
SMALL = 30.0  # below this mean a Poisson number is drawn exactly


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompts are log-normal; answers are a mix of (share, mean) exponentials, so that few are very long."""

    prompt_median: float = 600.0
    prompt_sigma: float = 1.2
    answers: tuple[tuple[float, float], ...] = ((0.55, 150.0), (0.35, 600.0), (0.10, 2500.0))

    @property
    def prompt_mean(self) -> float:
        return self.prompt_median * math.exp(self.prompt_sigma**2 / 2)

    @property
    def answer_mean(self) -> float:
        return sum(share * mean for share, mean in self.answers)

    def prompt(self, rng: random.Random) -> int:
        drawn = self.prompt_median * math.exp(self.prompt_sigma * rng.gauss(0.0, 1.0))
        return max(1, min(LONGEST_PROMPT, round(drawn)))

    def answer(self, rng: random.Random) -> int:
        (mean,) = rng.choices([mean for _, mean in self.answers], [share for share, _ in self.answers])
        return max(1, round(rng.expovariate(1 / mean)))


@dataclass(frozen=True, slots=True)
class Burst:
    """`height` is added to a rate of 1, after a ramp of `ramp` seconds; it falls as it rose."""

    start: float
    ramp: float
    length: float
    height: float

    def at(self, now: float) -> float:
        into, left = now - self.start, self.start + self.length - now
        return self.height * max(0.0, min(1.0, into / self.ramp, left / self.ramp))


def bursts(hours: float, rng: random.Random) -> list[Burst]:
    """Some each hour: a fifth to the whole of the rate on top, for 3 to 20 minutes, the high ones rare."""
    made, now = [], rng.expovariate(BURSTS_PER_HOUR) * HOUR
    while now < hours * HOUR:
        height = min(1.0, 0.2 * rng.paretovariate(2.0))
        made.append(Burst(now, rng.uniform(20, 120), rng.uniform(180, 1200), height))
        now += rng.expovariate(BURSTS_PER_HOUR) * HOUR
    return made


def shape(now: float) -> float:
    """Of the busiest hour's rate, without bursts."""
    wave = (1 + math.cos(2 * math.pi * (now - BUSIEST) / DAY)) / 2
    return NIGHT + (1 - NIGHT) * math.pow(wave, STEEP)


def level(now: float, made: Sequence[Burst]) -> float:
    return shape(now) * (1 + sum(burst.at(now) for burst in made))


def poisson(mean: float, rng: random.Random) -> int:
    if mean > SMALL:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    least, product, count = math.exp(-mean), rng.random(), 0
    while product > least:
        product *= rng.random()
        count += 1
    return count
