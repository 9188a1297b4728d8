"""What a replica gives to Ray: gauges as they are, counters as differences."""

from typing import Any

from cluster.telemetry import names
from cluster.telemetry.export import Export
from cluster.telemetry.names import Metric

LABELS = {"model": "m", "replica": "r"}


class Kept:
    """Stands for Ray's metrics: keeps what it was told."""

    def __init__(self, metric: Metric, calls: list[tuple[Any, ...]]) -> None:
        self._metric, self._calls = metric, calls

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._calls.append((self._metric.name, "set", value, tags))

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self._calls.append((self._metric.name, "inc", value, tags))


def test_counters_are_told_as_differences_and_not_at_all_while_they_stand() -> None:
    calls: list[tuple[Any, ...]] = []
    export = Export(LABELS, lambda metric: Kept(metric, calls))
    for steps in (0, 5, 5, 12):
        export.tell({names.STEPS: steps})
    assert [(verb, value) for _, verb, value, _ in calls] == [("inc", 5), ("inc", 7)]
    assert all(labels == LABELS for *_, labels in calls)


def test_gauges_are_told_each_time() -> None:
    calls: list[tuple[Any, ...]] = []
    export = Export(LABELS, lambda metric: Kept(metric, calls))
    export.tell({names.RUNNING: 3})
    export.tell({names.RUNNING: 3})
    assert [value for _, _, value, _ in calls] == [3, 3]
