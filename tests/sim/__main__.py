"""`python -m tests.sim SEED` tells a seed's run; `python -m tests.sim FIRST LAST` runs a range on all cores."""

import sys

from tests.sim.sweep import sweep, told
from tests.sim.world import live, silence


def main(arguments: list[str]) -> int:
    numbers = [int(argument) for argument in arguments]
    if len(numbers) == 1:
        silence()
        run = live(numbers[0])
        print(told(run))
        return bool(run.violations)
    bad = sweep(range(*numbers))
    for run in bad[:40]:
        print(run.seed, run.violations[:2])
    print(f"{len(bad)} of {numbers[1] - numbers[0]} seeds break a promise")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
