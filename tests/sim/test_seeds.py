"""Thousands of worlds with faults keep every promise, and each bug that was found or put in is found in its seed."""

import os

import pytest

from tests.sim.mutants import FOUND, mutated
from tests.sim.sweep import sweep, told
from tests.sim.world import live, silence

SEEDS = int(os.environ.get("SEEDS", "10000"))
FIRST = int(os.environ.get("FIRST_SEED", "0"))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    silence()


@pytest.mark.parametrize("bug", FOUND)
def test_the_simulation_finds_that(bug: str) -> None:
    seed = FOUND[bug]
    with mutated(bug):
        assert live(seed).violations, "look for another seed: python -m tests.sim bugs"
    run = live(seed)
    assert not run.violations, told(run)


def test_a_seed_tells_the_same_story_again() -> None:
    one, two = live(42), live(42)
    assert (one.trace, one.steps, one.seconds) == (two.trace, two.steps, two.seconds)


@pytest.mark.sim
@pytest.mark.timeout(900)
def test_every_seed_keeps_every_promise() -> None:
    bad = sweep(range(FIRST, FIRST + SEEDS))
    seeds = [run.seed for run in bad]
    assert not bad, "\n\n".join([f"{len(bad)} of {SEEDS} seeds: {seeds}", *map(told, bad[:3])])
