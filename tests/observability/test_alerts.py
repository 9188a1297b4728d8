"""Every alert fires when it should, not before its time, and stays silent when it should: by promtool.

cases/ has for each alert, in a file named as that of its rule: the labels it fires with, the series on which it does,
and series on which it does not. A sample is a minute (promtool's notation: start+step x times). `at` is when one looks,
30m if unsaid. A silent case has the same metrics as the firing one, so that it is the values that keep it silent.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.promtool import check, metric, minutes, promtool
from tests.observability.rules import OBSERVABILITY, RULES, alerts

# BaseLoader: to YAML, 0x60 is a number.
CASES: dict[str, dict[str, Any]] = {
    alert: case
    for path in sorted(Path(__file__).with_name("cases").glob("*.yaml"))
    for alert, case in yaml.load(path.read_text(), Loader=yaml.BaseLoader).items()
}
ALERTS = alerts()
SEVERITIES = {"critical", "warning"}


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    assert set(CASES) == set(ALERTS)
    for name, case in CASES.items():
        assert case["fires"], name
        assert case["silent"], name


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_fires_after_its_time_and_only_then(alert: str, tmp_path: Path) -> None:
    case, rule = CASES[alert], ALERTS[alert]
    at, wait = minutes(case.get("at", "30m")), minutes(rule["for"])
    labels = {name: str(value) for name, value in {**case["labels"], **rule["labels"]}.items()}
    looks = [(case["fires"], at, labels), (case["fires"], wait - 1, None)]
    looks += [(series, at, labels) for series in case.get("fires_too", {}).values()]
    assert check(alert, looks, tmp_path) == ""


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_is_silent_where_it_should_be(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    at = minutes(case.get("at", "30m"))
    for name, series in case["silent"].items():
        found = check(alert, [(series, at, None)], tmp_path)
        assert found == "", f"{name}: {found}"


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_silent_case_has_the_metrics_of_the_firing_one(alert: str) -> None:
    """Else it would be silent for want of series."""
    firing = {metric(series) for series in CASES[alert]["fires"]}
    silent = [{metric(series) for series in case} for case in CASES[alert]["silent"].values()]
    assert any(firing <= metrics for metrics in silent)
    assert all(metrics & firing for metrics in silent)


def test_promtool_accepts_the_rules() -> None:
    run = promtool("check", "rules", "--lint-fatal", *RULES)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_says_how_bad_it_is_and_what_it_means(alert: str) -> None:
    rule = ALERTS[alert]
    assert alert.startswith("Headrace")
    assert rule["labels"]["severity"] in SEVERITIES
    texts = rule["annotations"]
    assert set(texts) == {"summary", "description", "runbook_url"}
    assert len(texts["summary"]) <= 120
    named = re.findall(r"\$labels\.(\w+)", texts["summary"] + texts["description"])
    assert set(named) <= set(CASES[alert]["labels"]), "a label that the alert does not have"


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    text = (OBSERVABILITY / "runbooks.md").read_text()
    headings = re.findall(r"^### (\w+)$", text, flags=re.M)
    assert sorted(headings) == sorted(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"deploy/observability/runbooks.md#{name.lower()}"


@pytest.mark.parametrize("part", ["**Means.**", "**See.**", "**Do.**", "**Callers.**"])
def test_a_runbook_says(part: str) -> None:
    text = (OBSERVABILITY / "runbooks.md").read_text()
    for book in re.split(r"^### ", text, flags=re.M)[1:]:
        assert part in book, book.splitlines()[0]
