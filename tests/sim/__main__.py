"""`python -m tests.sim SEED` tells a seed's run, `python -m tests.sim FIRST LAST` runs a range on all cores, and
`python -m tests.sim bugs` tells the first seed that finds each of the bugs that are put in."""

import sys

from tests.sim.mutants import MUTANTS, first
from tests.sim.sweep import sweep, told
from tests.sim.world import live, silence

MOST = 5000  # seeds for a bug


def main(arguments: list[str]) -> int:
    silence()
    if arguments == ["bugs"]:
        return bugs()
    numbers = [int(argument) for argument in arguments]
    if len(numbers) == 1:
        run = live(numbers[0])
        print(told(run))
        return bool(run.violations)
    bad = sweep(range(*numbers))
    for run in bad[:40]:
        print(run.seed, run.violations[:2])
    print(f"{len(bad)} of {numbers[1] - numbers[0]} seeds break a promise")
    return bool(bad)


def bugs() -> int:
    seeds = {bug: first(bug, MOST) for bug in MUTANTS}
    for bug, seed in seeds.items():
        print(f"{seed}\t{bug}")
    return None in seeds.values()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
