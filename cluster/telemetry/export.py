"""Figures on their way to Prometheus through Ray: a counter of Ray's takes differences, and any call costs some
microseconds, so nothing here is called for each step."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from cluster.telemetry.names import Metric

PERIOD = 1.0  # seconds; Ray itself reports every 10 by default


def made(metric: Metric) -> Any:
    """Ray's object for a metric; in one process there is one for each name."""
    from ray.util import metrics

    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.help, metric.labels)


class Export:
    """The figures of one replica, all under the same labels."""

    def __init__(self, labels: Mapping[str, str], make: Callable[[Metric], Any] = made) -> None:
        self._labels = dict(labels)
        self._make = make
        self._made: dict[Metric, Any] = {}
        self._counted: dict[Metric, float] = {}

    async def run(self, figures: Callable[[], Mapping[Metric, float]], period: float = PERIOD) -> None:
        """Tells them every `period` seconds, until cancelled."""
        while True:
            self.tell(figures())
            await asyncio.sleep(period)

    def tell(self, figures: Mapping[Metric, float]) -> None:
        """Counters are given as they stand."""
        for metric, value in figures.items():
            if metric.kind == "gauge":
                self._of(metric).set(value, tags=self._labels)
            elif (more := value - self._counted.get(metric, 0.0)) > 0:
                self._of(metric).inc(more, tags=self._labels)
                self._counted[metric] = value

    def observe(self, metric: Metric, value: float) -> None:
        self._of(metric).observe(value, tags=self._labels)

    def _of(self, metric: Metric) -> Any:
        if metric not in self._made:
            self._made[metric] = self._make(metric)
        return self._made[metric]
