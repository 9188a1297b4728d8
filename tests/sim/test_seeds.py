"""Thousands of worlds with faults keep every promise, and each bug that was found or put in is found in its seed."""

import os

import pytest

from tests.sim.mutants import MUTANTS, first
from tests.sim.sweep import sweep, told
from tests.sim.world import live, silence

SEEDS = int(os.environ.get("SEEDS", "10000"))
MOST = 1500  # seeds in which a bug has to be found
FIRST = int(os.environ.get("FIRST_SEED", "0"))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    silence()


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_simulation_finds_that(bug: str) -> None:
    assert first(bug, MOST) is not None


def test_a_seed_tells_the_same_story_again() -> None:
    one, two = live(42), live(42)
    assert (one.trace, one.steps, one.seconds) == (two.trace, two.steps, two.seconds)


@pytest.mark.sim
@pytest.mark.timeout(900)
def test_every_seed_keeps_every_promise() -> None:
    bad = sweep(range(FIRST, FIRST + SEEDS))
    seeds = [run.seed for run in bad]
    assert not bad, "\n\n".join([f"{len(bad)} of {SEEDS} seeds: {seeds}", *map(told, bad[:3])])
