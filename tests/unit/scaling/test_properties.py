"""What holds for every load: bounds, steps, no flapping, no overshoot, no removal on missing data."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.scaling.law import Decision, HeldBecause, Memory, Observation, Reason, decide, measure, needed
from cluster.scaling.settings import ScalingSettings
from tests.unit.scaling.world import World

observed = st.builds(
    Observation,
    running=st.integers(0, 300),
    waiting=st.integers(0, 300),
    kv_use=st.floats(0, 1),
    queued_tokens=st.integers(0, 500_000),
    age_s=st.floats(0, 30),
)
fleets = st.lists(st.none() | observed, max_size=12)
laws = st.builds(
    ScalingSettings,
    min_replicas=st.integers(0, 4),
    max_replicas=st.integers(4, 40),
    target_turns=st.floats(4, 200),
    upscale_delay_seconds=st.sampled_from([0, 15, 30]),
    downscale_delay_seconds=st.sampled_from([0, 60, 600]),
    downscale_step_seconds=st.sampled_from([0, 30]),
    downscale_to_zero_delay_seconds=st.sampled_from([0, 60, 1800]),
)
counts = st.none() | st.integers(0, 1000)
calls = st.lists(st.tuples(st.floats(0, 20), fleets, counts), min_size=1, max_size=60)
Call = tuple[float, Sequence[Observation | None], int | None]


@given(laws, calls, st.integers(0, 60))
def test_bounds_hold_always_and_steps_are_small(
    law: ScalingSettings, calls: Sequence[Call], target: int
) -> None:
    now, memory = 0.0, Memory()
    for wait, fleet, held in calls:
        now += wait
        decision, memory = decide(now, fleet, target, held, law, memory)
        assert law.min_replicas <= decision.desired <= law.max_replicas
        if law.min_replicas <= target <= law.max_replicas:
            assert target - 1 <= decision.desired <= max(2 * target, 1)
            assert decision.desired <= max(target, 2 * len(fleet), 1)
        target = decision.desired


@given(laws, calls, st.integers(1, 40), st.data())
def test_nothing_is_removed_while_data_is_missing(
    law: ScalingSettings, calls: Sequence[Call], target: int, data: st.DataObject
) -> None:
    target = min(max(target, law.min_replicas), law.max_replicas)
    now, memory = 0.0, Memory()
    for wait, fleet, held in calls:
        now += wait
        silent = data.draw(st.sampled_from(["replica", "stale", "gateways", "all"]))
        if silent == "gateways":
            held = None
        elif silent == "all":
            fleet = []
        else:
            fleet = [*fleet, None if silent == "replica" else Observation(age_s=15.1)]
        decision, memory = decide(now, fleet, target, held, law, memory)
        assert decision.desired >= target
        target = decision.desired


@given(laws, fleets, counts, st.integers(1, 40))
def test_what_is_not_known_adds_nothing(
    law: ScalingSettings, fleet: Sequence[Observation | None], held: int | None, target: int
) -> None:
    known = [each for each in fleet if each is not None and each.age_s <= law.stale_after_seconds]
    partly, wholly = measure(fleet, target, held, law), measure(known, target, held or 0, law)
    assert partly.low == wholly.low
    assert partly.high >= wholly.high


@given(laws, calls, st.integers(0, 40), st.integers(0, 3), st.integers(0, 400))
def test_more_load_never_asks_for_less(
    law: ScalingSettings, calls: Sequence[Call], target: int, kind: int, more: int
) -> None:
    """The same memory, target and replicas: only the last observation differs."""
    target = min(max(target, law.min_replicas), law.max_replicas)
    now, memory = 0.0, Memory()
    for wait, fleet, held in calls[:-1]:
        now += wait
        _, memory = decide(now, fleet, target, held, law, memory)
    wait, fleet, held = calls[-1]
    busier = [busier_by(each, kind, more) for each in fleet]
    lighter, _ = decide(now + wait, fleet, target, held, law, memory)
    heavier, _ = decide(
        now + wait, busier, target, held if held is None or kind < 3 else held + more, law, memory
    )
    assert heavier.desired >= lighter.desired


def busier_by(observation: Observation | None, kind: int, more: int) -> Observation | None:
    if observation is None:
        return None
    changed = [
        replace(observation, waiting=observation.waiting + more),
        replace(observation, queued_tokens=observation.queued_tokens + more * 1000),
        replace(observation, kv_use=min(1.0, observation.kv_use + more / 400)),
        observation,
    ]
    return changed[kind]


@given(laws, calls, st.integers(0, 40))
def test_it_is_pure_and_its_memory_goes_through_json(
    law: ScalingSettings, calls: Sequence[Call], target: int
) -> None:
    now, memory, told = 0.0, Memory(), Memory()
    for wait, fleet, held in calls:
        now += wait
        first, memory_of_first = decide(now, fleet, target, held, law, memory)
        second, _ = decide(now, list(fleet), target, held, law, memory)
        third, told = decide(now, fleet, target, held, law, told)
        assert first == second == third
        assert memory_of_first == told
        memory, told = memory_of_first, Memory.read(json.loads(json.dumps(told.document())))
        json.dumps(first.document())
        assert len(memory.lows.samples) <= 40 and len(memory.highs.samples) <= 40
        target = first.desired


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 400), st.integers(1, 40), st.floats(0, 600))
def test_a_constant_load_is_answered_once_and_stays_answered(
    demand: float, replicas: int, dead_time: float
) -> None:
    law = ScalingSettings(max_replicas=64, target_turns=16)
    world = World(law, lambda now: demand, replicas, dead_time)
    world.turns = min(demand, replicas * 16.0)
    list(world.run(6 * 3600))
    settled = world.target
    for decision in world.run(2 * 3600):
        assert decision.desired == settled
    assert settled >= needed(demand / 16 - 0.1, law)


@settings(max_examples=40, deadline=None)
@given(st.floats(1, 400), st.integers(2, 40))
def test_from_too_many_the_way_is_only_down_and_from_too_few_it_turns_once(
    demand: float, replicas: int
) -> None:
    world = World(ScalingSettings(max_replicas=64, target_turns=16), lambda now: demand, replicas)
    world.turns = min(demand, replicas * 16.0)
    targets = [replicas, *(decision.desired for decision in world.run(8 * 3600))]
    signs = [math.copysign(1, b - a) for a, b in pairwise(targets) if a != b]
    turns = sum(1 for a, b in pairwise(signs) if a != b)
    assert turns <= (0 if replicas * 16 * 0.85 > demand + 2 else 1)


@settings(max_examples=60, deadline=None)
@given(st.floats(8, 40), st.floats(2, 12), st.floats(60, 600))
def test_a_step_of_demand_overshoots_less_than_twice_what_it_needs(
    before: float, times: float, dead_time: float
) -> None:
    """Replicas load for `dead_time`, and a queue grows all the while."""
    law = ScalingSettings(max_replicas=1000, target_turns=16)
    world = World(law, lambda now: before * (times if now > 3600 else 1), needed(before / 16, law), dead_time)
    world.turns = before
    most = max(decision.desired for decision in world.run(4 * 3600))
    assert most <= 2 * needed(before * times / 16, law)


@given(st.floats(5, 30), st.sampled_from([0.0, 15.0, 30.0, 60.0]))
def test_a_step_is_answered_within_its_delay_and_one_look(load: float, delay: float) -> None:
    assume(load > 8.6)
    law = ScalingSettings(max_replicas=64, target_turns=10, upscale_delay_seconds=delay)
    memory, now, quiet, loud = Memory(), 0.0, [Observation(1)] * 4, [Observation(round(load))] * 4
    while now < 100:
        _, memory = decide(now, quiet, 4, 0, law, memory)
        now += 1
    began = now
    while (decision := decide(now, loud, 4, 0, law, memory))[0].desired == 4:
        memory, now = decision[1], now + 1
    assert delay <= now - began <= delay * (1 + 1 / 30) + 1
    assert decision[0].reason is Reason.TURNS


@settings(max_examples=40, deadline=None)
@given(st.floats(20, 300), st.lists(st.floats(-0.15, 0.15), min_size=200, max_size=200))
def test_noise_does_not_send_replicas_up_and_down_and_up(mean: float, noise: Sequence[float]) -> None:
    law = ScalingSettings(max_replicas=64, target_turns=16)
    world = World(law, lambda now: mean * (1 + noise[int(now / 30) % 200]), needed(mean / 16, law))
    world.turns = mean
    changes = [(world.now, world.target, decision.desired) for decision in _changes(world, 4 * 3600)]
    last_up = -math.inf
    before = needed(mean / 16, law)
    for now, _, desired in changes:
        if desired < before:
            assert now - last_up >= law.downscale_delay_seconds
        elif desired > before:
            last_up = now
        before = desired


def _changes(world: World, seconds: float) -> Iterator[Decision]:
    before = world.target
    for decision in world.run(seconds):
        if decision.desired != before:
            before = decision.desired
            yield decision


def test_held_turns_count_beside_those_in_replicas() -> None:
    law = ScalingSettings(max_replicas=64, target_turns=10)
    demand = measure([Observation(running=8, kv_use=0.4)] * 2, 2, 5, law)
    assert demand.low == 1.6 + 0.5


def test_at_most_says_that_it_holds_back() -> None:
    law = ScalingSettings(max_replicas=2, target_turns=10)
    decision, _ = decide(0.0, [Observation(running=50)] * 2, 2, 0, law, Memory())
    assert (decision.desired, decision.held_because) == (2, HeldBecause.BOUNDS)
