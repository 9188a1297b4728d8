"""Many seeds on all cores."""

import gc
import multiprocessing
import os
from collections.abc import Sequence

from tests.sim.world import Run, live, silence

CHUNK = 50  # seeds between two collections


def sweep(seeds: Sequence[int], processes: int | None = None) -> list[Run]:
    """The runs that broke a promise."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    with multiprocessing.get_context("fork").Pool(processes or os.cpu_count(), silence) as pool:
        return [run for runs in pool.imap_unordered(_some, chunks) for run in runs]


def _some(seeds: Sequence[int]) -> list[Run]:
    gc.disable()
    runs = [live(seed) for seed in seeds]
    gc.collect()
    return [run for run in runs if run.violations]


def told(run: Run) -> str:
    lines = [f"{at:8.3f}  {what}" for at, what in run.trace]
    return "\n".join([f"seed {run.seed}", *lines, *(run.violations or ["every promise is kept"])])
