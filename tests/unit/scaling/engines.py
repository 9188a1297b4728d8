"""SimEngine itself under Poisson traffic on a virtual clock: what the simulation's fluid is compared with."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from cluster.engine.port import EngineRequest
from cluster.engine.sim import SimEngine, SimSettings
from cluster.engine.timing import SimTiming
from cluster.scaling.simulation.traffic import Lengths
from tests.sim.loop import VirtualLoop


@dataclass
class Seen:
    """`turns` and `kv` are (time, value) after each step; `first_tokens` are seconds."""

    first_tokens: list[float] = field(default_factory=list)
    turns: list[tuple[float, float]] = field(default_factory=list)
    kv: list[tuple[float, float]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        return sorted(self.first_tokens)[int(share * len(self.first_tokens))]


def watched(
    timing: SimTiming,
    lengths: Lengths,
    rate: Callable[[float], float],
    seconds: float,
    warm: float,
    seed: int,
) -> Seen:
    """One engine for `seconds`; first tokens are counted after `warm` seconds."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_watch(timing, lengths, rate, seconds, warm, random.Random(seed)))
    finally:
        loop.close()


async def _watch(
    timing: SimTiming,
    lengths: Lengths,
    rate: Callable[[float], float],
    seconds: float,
    warm: float,
    rng: random.Random,
) -> Seen:
    loop, engine, seen = asyncio.get_running_loop(), SimEngine(SimSettings(timing=timing)), Seen()
    submitted: dict[int, float] = {}

    async def arrive() -> None:
        while True:
            await asyncio.sleep(rng.expovariate(rate(loop.time())))
            id = len(submitted)
            submitted[id] = loop.time()
            prompt = [id] * lengths.prompt(rng)
            await engine.submit(EngineRequest(id=id, prompt=prompt, max_tokens=lengths.answer(rng)))

    arriving = asyncio.create_task(arrive())
    while loop.time() < seconds:
        step, now = await engine.step(), loop.time()
        seen.first_tokens += [
            now - submitted[first.id] for first in step.firsts if submitted[first.id] > warm
        ]
        load = engine.load()
        seen.turns.append((now, load.running + load.waiting))
        seen.kv.append((now, load.kv_use))
    arriving.cancel()
    return seen


def mean(samples: list[tuple[float, float]], since: float, until: float = float("inf")) -> float:
    """Over time; each sample holds until the next."""
    total = spent = 0.0
    for (start, value), (end, _) in pairwise(samples):
        if since <= start < until:
            total, spent = total + value * (end - start), spent + end - start
    return total / spent
