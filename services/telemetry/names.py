"""`python -m services.telemetry.names`: every metric there is, as JSON, by the names that Prometheus shows.

One entry for each name: `name`, `type`, `labels`, `help`; a histogram is three. Ray's own labels are not listed.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from cluster.telemetry import names as cluster
from services.telemetry import metrics


class Name(NamedTuple):
    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def all_names() -> list[Name]:
    """Sorted by name: the gateway's, then what comes out of Ray's port, its own and vLLM's not included."""
    return sorted((*_gateway(), *_cluster()))


def _gateway() -> Iterator[Name]:
    for metric in vars(metrics).values():
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        [family] = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = tuple(metric._labelnames)
        yield from _forms(Name(name, family.type, labels, family.documentation))


def _cluster() -> Iterator[Name]:
    for metric in cluster.ALL:
        yield from _forms(Name(cluster.PREFIX + metric.name, metric.kind, metric.labels, metric.help))


def _forms(name: Name) -> Iterator[Name]:
    if name.type != "histogram":
        yield name
        return
    yield name._replace(name=f"{name.name}_bucket", labels=(*name.labels, "le"))
    yield name._replace(name=f"{name.name}_sum")
    yield name._replace(name=f"{name.name}_count")


def main() -> None:
    print(json.dumps([name._asdict() for name in all_names()], indent=1))


if __name__ == "__main__":
    main()
