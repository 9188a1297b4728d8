"""The figures of all workers as one scrape."""

from collections.abc import Iterator
from math import isnan

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector


class Figures(Collector):
    """Reads the files of prometheus-client's multi-process mode in `folder`. A sample that is not a number is of
    something that is no more: the mode itself can forget nothing."""

    def __init__(self, folder: str) -> None:
        self._workers = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        for metric in self._workers.collect():  # type: ignore[no-untyped-call]
            metric.samples = [sample for sample in metric.samples if not isnan(sample.value)]
            yield metric
