"""Queries that the chart renders are PromQL, and ask for pods as Kubernetes names them."""

import json
import random
import re
import string
from collections.abc import Iterator

import promql_parser
import pytest

from deploy.chart.comments import CHART
from tests.chart.cases import question
from tests.chart.helm import Object
from tests.chart.manifests import Manifests, manifests

LONG = "a-release-whose-name-is-as-long-as-helm-takes-it-here"


def queries(m: Manifests) -> Iterator[str]:
    for item in m.of("ScaledObject"):
        triggers = item["spec"]["triggers"]
        yield from (each["metadata"]["query"] for each in triggers if each["type"] == "prometheus")
    for item in m.of("PrometheusRule"):
        yield from (rule["expr"] for group in item["spec"]["groups"] for rule in group["rules"])
    for item in m.of("ConfigMap"):
        for key, text in item.get("data", {}).items():
            if key.endswith(".json"):
                yield from of_dashboard(json.loads(text))


def of_dashboard(board: Object) -> Iterator[str]:
    """Grafana's variables stand where a value stands."""
    for panel in board.get("panels", ()):
        yield from of_dashboard(panel)
        for target in panel.get("targets", ()):
            yield re.sub(r"\$__(rate_)?interval|\$__range", "5m", target["expr"]).replace("$", "")


@pytest.mark.parametrize("case", ["everything", "keda"])
def test_every_query_parses(case: str) -> None:
    for query in queries(manifests(question(case))):
        promql_parser.parse(query)


def test_there_are_queries() -> None:
    assert list(queries(manifests(question("keda"))))
    rules = list(CHART.glob("files/rules/*.yaml"))
    assert bool(rules) == bool(manifests(question("everything")).of("PrometheusRule"))


def test_what_is_no_promql_is_seen() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(x[5m])")


def pod_name(deployment: str, hash_length: int) -> str:
    """As the controllers make it: a hash for the ReplicaSet, then 58 characters at most before five drawn ones."""
    draw = random.Random(0)
    letters = [c for c in string.ascii_lowercase + string.digits if c not in "aeiou013"]
    base = f"{deployment}-{''.join(draw.choices(letters, k=hash_length))}-"
    return base[:58] + "".join(draw.choices(letters, k=5))


@pytest.mark.parametrize("release", ["headrace", LONG])
@pytest.mark.parametrize("hash_length", [8, 9, 10])
def test_the_scaler_asks_for_the_gateways_pods(release: str, hash_length: int) -> None:
    found = manifests(question("keda", release=release))
    name = found.of("Deployment")[0]["metadata"]["name"]
    (query,) = queries(found)
    (pattern,) = {json.loads(each) for each in re.findall(r'pod=~("[^"]*")', query)}
    assert re.fullmatch(pattern, pod_name(name, hash_length))
    assert not re.fullmatch(pattern, f"other-{name}-abc-def")


def test_alerts_point_to_the_operators_own_runbooks() -> None:
    [rules] = manifests(question("everything")).of("PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert (
            alert["annotations"]["runbook_url"] == f"https://wiki.example/headrace#{alert['alert'].lower()}"
        )
