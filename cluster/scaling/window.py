"""The greatest or least of a value over the last seconds, in a bounded number of samples."""

from collections.abc import Callable
from dataclasses import dataclass

GRAINS = 30  # samples of a window; it reaches back one grain further than asked at most


@dataclass(frozen=True, slots=True)
class Window:
    """Samples are (from when, value), oldest first; each holds until the next begins."""

    samples: tuple[tuple[float, float], ...] = ()

    def seen(self, now: float, value: float, span: float, pick: Callable[[float, float], float]) -> "Window":
        """With `value` as of `now`, and without what ended more than `span` seconds ago."""
        samples = self.samples
        if samples and now - samples[-1][0] < span / GRAINS:
            start, last = samples[-1]
            samples = (*samples[:-1], (start, pick(last, value)))
        else:
            samples = (*samples, (now, value))
        while len(samples) > 1 and samples[1][0] <= now - span:
            samples = samples[1:]
        return Window(samples)

    def covers(self, now: float, span: float) -> bool:
        return bool(self.samples) and self.samples[0][0] <= now - span

    def values(self) -> tuple[float, ...]:
        return tuple(value for _, value in self.samples)
