"""Asks a running Prometheus every query of every panel, and fails on those that show nothing.

python -m deploy.observability.panels [ADDRESS]     the Prometheus of `make observe`, if no host:port is given

To be run while a load runs: a histogram without samples has no quantiles.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.local.home import Home
from deploy.observability.dashboards import ALL
from deploy.observability.prometheus import Api, Unanswered

INTERVAL = "30s"  # in place of Grafana's, which goes by the width of a panel

EXPORTER = "redis_exporter is scraped only where an operator runs one"
VLLM = "only replicas with vLLM have it, the simulated engine has none"
EVENT = "it is there once something has gone wrong"
SCALING = "only an application that is autoscaled decides"
# What may show nothing, by how the metric begins, and why.
EXCUSED = {
    "redis_": EXPORTER,
    "headrace:vllm:": VLLM,
    "ray_headrace_scaling_": SCALING,
    "headrace_migrations_total": EVENT,
    "headrace_reroutes_total": EVENT,
    "headrace_ejections_total": EVENT,
    "headrace_malformed_total": EVENT,
    "headrace_link_reconnects_total": EVENT,
    'headrace_tenant_turns_total{namespace=~".*", tenant=~".*", outcome="refused_full"': EVENT,
    "headrace_turns_held": "turns are held only while no replica has room",
    "ray_headrace_replica_canary_failures_total": EVENT,
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a query of a panel gave: how many series, and why none may be right."""

    panel: str
    legend: str
    series: int
    excuse: str | None

    @property
    def wrong(self) -> bool:
        return self.series == 0 and self.excuse is None


def filled_in(expr: str) -> str:
    """The query with everything chosen, as Grafana sends it."""
    return re.sub(r"\$(namespace|model|tenant|replica)", ".*", expr.replace("$__rate_interval", INTERVAL))


def excuse(expr: str) -> str | None:
    return next(
        (why for start, why in EXCUSED.items() if re.search(rf"(?<![\w:]){re.escape(start)}", expr)), None
    )


def look(api: Api) -> Iterator[Shown]:
    """Raises Unanswered, also for a query that Prometheus refuses."""
    for page in ALL:
        for panel in page.panels:
            for legend, expr in panel.queries.items():
                asked = filled_in(expr)
                found = sum(series["value"][1] != "NaN" for series in api.query(asked))
                yield Shown(f"{page.title}: {panel.title}", legend, found, excuse(asked))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.observability.panels")
    parser.add_argument("address", nargs="?", help="host:port of a Prometheus")
    address = parser.parse_args().address or _observed()
    try:
        shown = list(look(Api(address)))
    except Unanswered as error:
        sys.exit(f"panels: {error}")
    for each in shown:
        if each.series == 0:
            print(f"{'EMPTY' if each.wrong else 'empty'}  {each.panel} [{each.legend}]  {each.excuse or ''}")
    bad = sum(each.wrong for each in shown)
    print(f"{len(shown)} queries: {sum(each.series > 0 for each in shown)} with data, {bad} wrongly empty")
    sys.exit(bool(bad))


def _observed() -> str:
    from deploy.observability.observe import Observer

    observer = Observer.load(Home.of(os.environ).root)
    if observer is None:
        sys.exit("panels: no Prometheus of `make observe` runs; start it, or name one as host:port")
    return observer.address


if __name__ == "__main__":
    main()
