"""Thousands of worlds with faults keep every promise; those that once did not, each by its name; and bugs are found."""

import os

import pytest

from tests.sim.mutants import MUTANTS, mutated
from tests.sim.sweep import sweep, told
from tests.sim.world import live, silence

SEEDS = int(os.environ.get("SEEDS", "10000"))
FIRST = int(os.environ.get("FIRST_SEED", "0"))

# What broke in the seed, before the fix.
FOUND = {
    155: "the reply to a takeover was lost, and nobody ran the turn",
    97: "a failover of the store forgot an ending, and the turn ran for ever",
    5: "a forgotten gateway created a turn and died",
    128: "readers of an ending that the store refused waited for ever",
    10: "a gateway that shut down took turns over and ended them",
    673: "an answer with a held-back end read differently at another gateway",
    880: "two takeovers had one epoch, and the turn two endings",
    1892: "two takeovers had one epoch, and a token was lost",
}


@pytest.mark.parametrize("seed", FOUND, ids=[f"{seed}: {what}" for seed, what in FOUND.items()])
def test_what_a_seed_found_stays_mended(seed: int) -> None:
    run = live(seed)
    assert not run.violations, told(run)


def test_a_seed_tells_the_same_story_again() -> None:
    one, two = live(42), live(42)
    assert (one.trace, one.steps, one.seconds) == (two.trace, two.steps, two.seconds)


@pytest.mark.sim
@pytest.mark.timeout(900)
def test_every_seed_keeps_every_promise() -> None:
    bad = sweep(range(FIRST, FIRST + SEEDS))
    assert not bad, "\n\n".join(
        [f"{len(bad)} of {SEEDS} seeds: {[run.seed for run in bad]}", *map(told, bad[:3])]
    )


@pytest.mark.sim
@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_finds_that(name: str) -> None:
    silence()
    with mutated(name):
        found = next((seed for seed in range(1000) if live(seed).violations), None)
    assert found is not None
