"""What the network policies say where a list is empty or names addresses, and which store is reached by default."""

import json
from typing import Any

import pytest

from tests.chart.cases import CASES
from tests.chart.checks.flows import FAR_STORE, INTERNET, NEAR_STORE, STORE, end, parts
from tests.chart.helm import Question
from tests.chart.manifests import Manifests, manifests
from tests.chart.network import allowed, outside

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]


def made(case: str, **values: Any) -> Manifests:
    sets = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items()]
    return manifests(Question(CASES[case], tuple(sets)))


@pytest.mark.parametrize("empty", [[], None])
@pytest.mark.parametrize(
    ("case", "value"),
    [
        ("everything", "dns__to"),
        ("everything", "tracing__to"),
        ("scaling", "apiServer__cidrs"),
        ("hub", "hub__cidrs"),
        ("everything", "monitoring__from"),
        ("everything", "kuberay__from"),
        ("everything", "gateway__from"),
    ],
)
def test_a_list_without_peers_is_no_rule(case: str, value: str, empty: object) -> None:
    """To Kubernetes a rule with an empty list of peers is one for everybody."""
    found = made(case, **{f"networkPolicy__{value}": empty}).of("NetworkPolicy")
    rules = [("to", rule) for item in found for rule in item["spec"].get("egress") or ()]
    rules += [("from", rule) for item in found for rule in item["spec"].get("ingress") or ()]
    assert len(rules) > 5
    assert not [rule for peers, rule in rules if not rule.get(peers)]


def blocks(cidrs: list[str], exceptions: list[str]) -> list[Any]:
    values = {"networkPolicy__hub__cidrs": cidrs, "networkPolicy__hub__except": exceptions}
    for item in made("hub", **values).of("NetworkPolicy"):
        for rule in item["spec"].get("egress") or ():
            if rule.get("ports") == [{"port": 443}]:
                return [peer["ipBlock"] for peer in rule["to"]]
    raise AssertionError("no rule for the hub")


@pytest.mark.parametrize(
    ("cidr", "exceptions"),
    [
        ("0.0.0.0/0", PRIVATE),
        ("0.0.0.0/1", ["10.0.0.0/8"]),
        ("128.0.0.0/1", PRIVATE[1:]),
        ("172.0.0.0/8", ["172.16.0.0/12"]),
        ("10.0.0.0/8", None),
        ("10.1.2.0/24", None),
        ("::/0", ["fd00::/8"]),
        ("2000::/3", None),
    ],
)
def test_an_exception_is_made_of_what_holds_it(cidr: str, exceptions: list[str] | None) -> None:
    """Kubernetes refuses one that its block does not hold."""
    (block,) = blocks([cidr], [*PRIVATE, "fd00::/8"])
    assert (block["cidr"], block.get("except")) == (cidr, exceptions)


def test_a_store_is_reached_here_and_at_private_addresses_and_elsewhere_where_it_is_named() -> None:
    near = made("production", networkPolicy__store__to=[])
    named = made("production")
    for pod in (end(pod) for component in ("gateway", "engine") for pod in parts(near, component)):
        for target in (NEAR_STORE, outside("10.1.2.3")):
            assert allowed(near, pod, target, STORE) and not allowed(named, pod, target, STORE)
        assert allowed(named, pod, FAR_STORE, STORE) and not allowed(near, pod, FAR_STORE, STORE)
        assert not allowed(near, pod, INTERNET, STORE) and not allowed(near, pod, NEAR_STORE, 22)


def test_only_heads_that_scale_ask_the_api_server() -> None:
    assert not made("production").named("NetworkPolicy", "headrace-ray-autoscaler")
    server = [{"podSelector": {"matchLabels": {"component": "kube-apiserver"}}}]
    found = made("several", networkPolicy__apiServer__to=server)
    policy = found.named("NetworkPolicy", "headrace-ray-autoscaler")
    assert policy and policy["spec"]["egress"][0]["to"][-1:] == server
    (models,) = policy["spec"]["podSelector"]["matchExpressions"]
    assert models["values"] == ["gpt-oss-20b"]
