"""Shares of seconds in bins of equal ratio, 2.3 % apart."""

import math
from dataclasses import dataclass, field

LEAST = 0.001  # seconds; what is less counts as this
BINS_PER_DECADE = 100
DECADES = 7


def _bins() -> list[float]:
    return [0.0] * (BINS_PER_DECADE * DECADES + 1)


@dataclass(slots=True)
class Histogram:
    bins: list[float] = field(default_factory=_bins)
    total: float = 0.0

    def add(self, seconds: float, weight: float) -> None:
        place = int(math.log10(seconds / LEAST) * BINS_PER_DECADE) if seconds > LEAST else 0
        self.bins[min(place, len(self.bins) - 1)] += weight
        self.total += weight

    def below(self, seconds: float) -> float:
        """The share that took at most so long; 1 without any."""
        place = int(math.log10(max(seconds, LEAST) / LEAST) * BINS_PER_DECADE)
        return sum(self.bins[: place + 1]) / self.total if self.total else 1.0

    def quantile(self, share: float) -> float:
        """Seconds that `share` of all are below; 0 without any."""
        left = share * self.total
        for place, weight in enumerate(self.bins):
            left -= weight
            if left <= 0 and weight:
                return LEAST * 10 ** ((place + 0.5) / BINS_PER_DECADE)
        return 0.0
