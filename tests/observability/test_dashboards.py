"""The dashboards are what Grafana can load, and ask for what exists."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from deploy.observability.dashboards import ALL
from deploy.observability.grafana import COLUMNS, as_json
from deploy.observability.panels import EXCUSED, Shown, excuse, filled_in
from tests.observability.registry import series
from tests.observability.rules import ROOT, records, wrong

PAGES = {page.name: as_json(page) for page in ALL}
SHOWN = [
    (page, panel) for page, shown in PAGES.items() for panel in shown["panels"] if panel["type"] != "row"
]
NAMED = [f"{page}: {panel['title']}" for page, panel in SHOWN]
KNOWN = series()


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(child)


@pytest.mark.parametrize(("page", "panel"), SHOWN, ids=NAMED)
def test_a_panel_asks_for_what_exists(page: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert wrong(filled_in(target["expr"]), KNOWN, records()) == []


@pytest.mark.parametrize(("page", "panel"), SHOWN, ids=NAMED)
def test_a_panel_reads_the_chosen_prometheus_and_the_chosen_namespaces(
    page: str, panel: dict[str, Any]
) -> None:
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all('namespace=~"$namespace"' in target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("page", PAGES)
def test_a_dashboard_uses_only_variables_that_it_has(page: str) -> None:
    shown = PAGES[page]
    has = {variable["name"] for variable in shown["templating"]["list"]}
    asked = {name for name in ("namespace", "model", "tenant", "replica") if _mentions(shown, name)}
    assert asked <= has
    assert has == asked | {"datasource"}


def _mentions(shown: dict[str, Any], variable: str) -> bool:
    return any(f"${variable}" in text for panel in shown["panels"] for text in texts(panel))


def test_dashboards_and_their_panels_have_ids_of_their_own() -> None:
    uids = [shown["uid"] for shown in PAGES.values()]
    assert len(uids) == len(set(uids))
    assert all(len(uid) <= 40 for uid in uids), "Grafana's limit"
    for shown in PAGES.values():
        ids = [panel["id"] for panel in shown["panels"]]
        assert len(ids) == len(set(ids))
        titles = [panel["title"] for panel in shown["panels"]]
        assert len(titles) == len(set(titles))
        for panel in shown["panels"]:
            letters = [target["refId"] for target in panel.get("targets", ())]
            assert len(letters) == len(set(letters))


@pytest.mark.parametrize("page", PAGES)
def test_no_two_panels_overlap(page: str) -> None:
    places = [panel["gridPos"] for panel in PAGES[page]["panels"]]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_what_links_to_a_dashboard_finds_it() -> None:
    linked = [
        text.split("/d/")[1].split("?")[0]
        for shown in PAGES.values()
        for text in texts(shown)
        if text.startswith("/d/")
    ]
    assert linked
    assert set(linked) <= {shown["uid"] for shown in PAGES.values()}


def test_the_chart_ships_what_is_written_here() -> None:
    check = subprocess.run(
        [sys.executable, "-m", "deploy.observability", "--check"], cwd=ROOT, text=True, capture_output=True
    )
    assert (check.returncode, check.stdout) == (0, ""), check.stdout + check.stderr


def test_every_excuse_is_of_some_panel() -> None:
    queries = [filled_in(target["expr"]) for _, panel in SHOWN for target in panel["targets"]]
    used = {excuse(query) for query in queries} - {None}
    assert used == set(EXCUSED.values())


def test_a_panel_without_an_excuse_may_not_be_empty() -> None:
    assert Shown("p", "", 0, excuse(filled_in('sum(headrace_store_up{namespace=~"$namespace"})'))).wrong
    assert not Shown("p", "", 0, excuse("redis_connected_clients")).wrong
    assert not Shown("p", "", 1, None).wrong
