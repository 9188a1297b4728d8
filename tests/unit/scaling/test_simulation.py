"""The simulation's fluid against SimEngine itself, and what a simulated day has to be."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.engine.timing import SimTiming
from cluster.models.catalogue import find
from cluster.models.gpus import BY_NAME
from cluster.scaling.settings import ScalingSettings
from cluster.scaling.simulation.day import Outcome, World, simulate, traffic
from cluster.scaling.simulation.fleet import Fleet, Gateways
from cluster.scaling.simulation.histogram import Histogram
from cluster.scaling.simulation.policies import policies
from cluster.scaling.simulation.replicas import Kind
from cluster.scaling.simulation.speeds import NoSpeed, Speed, speed
from cluster.scaling.simulation.traffic import Lengths, level, poisson
from tests.unit.scaling.engines import mean, watched

LENGTHS = Lengths()
H100 = speed(find("gpt-oss-120b"), BY_NAME["h100"], 16)
A100 = speed(find("gpt-oss-20b"), BY_NAME["a100-80"], 1)
ENDLESS = 1_000_000
Samples = list[tuple[float, float]]


def fluid(
    timing: SimTiming, rate: Callable[[float], float], seconds: int, warm: int, seed: int = 5
) -> tuple[Fleet, Samples]:
    """One replica of the simulation; its first tokens after `warm`, and its turns after each tick."""
    rng = random.Random(seed)
    fleet, turns = Fleet(Kind(timing, LENGTHS, ENDLESS), Gateways(0, 1.0), rng), []
    fleet.start(1, 0.0)
    for now in range(0, seconds, 2):
        if now == warm:
            fleet.first_tokens = Histogram()
        fleet.tick(now, 2.0, poisson(rate(now) * 2, rng))
        turns.append((float(now), fleet.groups[0].turns))
    return fleet, turns


@pytest.mark.parametrize(
    ("kind", "share"), [(H100, 0.4), (H100, 0.8), (A100, 0.7)], ids=["low", "high", "a100"]
)
def test_the_fluid_has_the_turns_and_first_tokens_of_the_simulated_engine(kind: Speed, share: float) -> None:
    """Measured over 1,300 s at 0.4, 0.7 and 0.9 of both: turns within 3 %, KV use 9 %, first tokens 6 % (p50), 21 %
    (p95) and 27 % (p99). The bounds here leave room for the few thousand turns of a short run."""
    rate = share * Kind(kind.timing, LENGTHS, 256).throughput(256)
    engine = watched(kind.timing, LENGTHS, lambda now: rate, 700, 200, seed=3)
    fleet, turns = fluid(kind.timing, lambda now: rate, 30_000, 200)
    assert mean(turns, 200) == pytest.approx(mean(engine.turns, 200), rel=0.15)
    kv = [group.observation(0.0).kv_use for group in fleet.groups]
    assert kv[0] == pytest.approx(mean(engine.kv, 200), rel=0.35)
    for quantile, deviation in ((0.5, 0.1), (0.95, 0.3), (0.99, 0.35)):
        simulated = fleet.first_tokens.quantile(quantile)
        assert simulated == pytest.approx(engine.quantile(quantile), rel=deviation)


def test_the_fluid_fills_and_empties_as_the_simulated_engine_does() -> None:
    """Half of what a replica can do, then 1.6 times it for 90 seconds, then half: the mean of three runs."""
    most = Kind(H100.timing, LENGTHS, 256).throughput(256)

    def rate(now: float) -> float:
        return most * (1.6 if 150 <= now < 240 else 0.5)

    runs = [watched(H100.timing, LENGTHS, rate, 300, 150, seed).turns for seed in range(3)]
    fluids = [dict(fluid(H100.timing, rate, 300, 150, seed)[1]) for seed in range(8)]
    for moment in (170, 200, 230, 260, 290):
        engines = sum(mean(run, moment - 4, moment + 4) for run in runs) / len(runs)
        ours = sum(turns[float(moment)] for turns in fluids) / len(fluids)
        assert ours == pytest.approx(engines, rel=0.2)


def law(**settings: float) -> ScalingSettings:
    known = {"max_replicas": H100.most, "prefill_tokens_per_second": H100.timing.prefill_tokens_per_s}
    return ScalingSettings.model_validate(known | settings)


def outcomes(world: World, settings: ScalingSettings) -> dict[str, Outcome]:
    return {each.name: simulate(each, world, H100, settings) for each in policies(settings, 7)}


def test_a_day_is_the_same_for_the_same_seed_and_differs_for_another() -> None:
    world, settings = World(hours=1), law()
    first, second = (outcomes(world, settings)["headrace"] for _ in range(2))
    assert first == second
    other = outcomes(world.model_copy(update={"seed": 2}), settings)["headrace"]
    assert other.turns != first.turns


def test_the_law_meets_the_budget_with_fewer_gpus_than_the_peak_needs_and_others_do_not() -> None:
    made = outcomes(World(hours=12), law())
    ours, static = made["headrace"], made["static"]
    assert ours.in_budget > 0.995 and ours.available > 0.999
    assert ours.gpu_hours < 0.75 * static.gpu_hours
    assert made["kv-only"].available < 0.9
    assert made["cpu"].gpu_hours > 1.5 * ours.gpu_hours


def test_every_turn_that_arrives_is_served_refused_or_still_there() -> None:
    rng = random.Random(1)
    fleet = Fleet(Kind(H100.timing, LENGTHS, 64), Gateways(50, 10.0), rng)
    fleet.start(1, 0.0)
    given = 0.0
    for now in range(0, 600, 2):
        before = sum(turns for _, turns in fleet.queue)
        refused, arrived = fleet.refused, poisson(30.0, rng)
        fleet.tick(now, 2.0, arrived)
        queued = sum(turns for _, turns in fleet.queue)
        given += before + arrived - queued - (fleet.refused - refused)
        assert queued <= 50 + 1e-6
        assert fleet.groups[0].turns <= 64 + 1e-6
    assert fleet.refused > 0
    assert fleet.arrived == pytest.approx(given + fleet.refused + sum(turns for _, turns in fleet.queue))


def test_a_replica_that_loads_serves_nothing_and_one_that_is_removed_is_the_youngest() -> None:
    fleet = Fleet(Kind(H100.timing, LENGTHS, 64), Gateways(50, 10.0), random.Random(1))
    fleet.start(2, 0.0)
    fleet.start(3, 100.0)
    fleet.tick(0.0, 2.0, 1)
    assert (fleet.running, fleet.target) == (2, 5)
    fleet.stop(4)
    assert (fleet.running, fleet.target) == (1, 1)


def test_the_step_of_a_replica_gives_back_the_published_figures() -> None:
    """One H100 pair makes 646 tokens/s with 4 turns and, beside their prompts, 7,649 with 256."""
    timing = H100.timing
    assert 4 / timing.step_seconds(4, 0) == pytest.approx(646, rel=0.001)
    prompts = 256 * 1.1
    assert 256 / timing.step_seconds(256, prompts) == pytest.approx(7649, rel=0.001)


def test_what_nobody_published_is_not_guessed() -> None:
    with pytest.raises(NoSpeed, match="prefill_tokens_per_second of gpt-oss-120b on a100-80"):
        speed(find("gpt-oss-120b"), BY_NAME["a100-80"], 8)
    assert speed(find("gpt-oss-120b"), BY_NAME["a100-80"], 8, 8000.0).timing.prefill_tokens_per_s == 8000.0
    with pytest.raises(NoSpeed, match="there is a100-80 with 1 GPUs, h100 with 1 GPUs"):
        speed(find("gpt-oss-20b"), BY_NAME["l4"], 8)
    with pytest.raises(NoSpeed, match="does not fit"):
        speed(find("gpt-oss-120b"), BY_NAME["l4"], 1)


def test_several_figures_are_fitted() -> None:
    fitted = speed(find("gpt-oss-120b"), BY_NAME["b200"], 1, 20_000.0).timing
    for turns, tokens in ((100, 3663), (200, 5051), (300, 5725)):
        assert turns / fitted.step_seconds(turns, 0) == pytest.approx(tokens, rel=0.25)


@given(st.lists(st.floats(0.002, 900), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_within_a_bin_of_the_exact_one(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value, 1.0)
    exact = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.025)


def test_traffic_follows_the_day_and_bursts_come_on_top() -> None:
    load = traffic(World(), H100)
    assert load.bursts
    quiet, busy = level(2 * 3600.0, ()), level(14 * 3600.0, ())
    assert quiet < 0.2 and busy == pytest.approx(1.0)
    burst = max(load.bursts, key=lambda burst: burst.height)
    assert load.at(burst.start + burst.length / 2) > load.rate * level(burst.start + burst.length / 2, ())


def test_poisson_numbers_have_the_mean_and_the_variance() -> None:
    rng = random.Random(7)
    for average in (0.3, 8.0, 500.0):
        drawn = [poisson(average, rng) for _ in range(4000)]
        middle = sum(drawn) / len(drawn)
        assert middle == pytest.approx(average, rel=0.06)
        assert sum((each - middle) ** 2 for each in drawn) / len(drawn) == pytest.approx(average, rel=0.12)
