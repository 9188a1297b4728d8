"""Each check of `headrace doctor --cluster`, on injected facts."""

from dataclasses import replace
from typing import Any

import pytest

from deploy.local.doctor import GIB, Verdict
from deploy.survey.facts import NodeFacts, StoreFacts, Survey
from deploy.survey.judge import examine, missing

PACKAGES = {"headrace": "0.1.0", "ray": "2.60.0", "vllm": "0.32.0"}
NODE = NodeFacts(
    address="10.0.0.2",
    head=False,
    python="3.12.3",
    packages=PACKAGES,
    gpus=("NVIDIA H100 80GB HBM3",) * 8,
    drivers=frozenset({"580.10"}),
    ray_gpus=8.0,
    environment={"NCCL_SOCKET_IFNAME": "eth0"},
    interfaces=frozenset({"lo", "eth0"}),
    shm_total=16 * GIB,
    niceness=0,
    skew=0.01,
    skew_error=0.002,
)
HEAD = replace(
    NODE,
    address="10.0.0.1",
    head=True,
    gpus=(),
    drivers=frozenset(),
    ray_gpus=0.0,
    environment={},
    shm_total=64 << 20,
)
STORE = StoreFacts("10.0.0.9:6379", "valkey 9.1.2", "noeviction", True, 1, 0.1, 0.0, 0.001)
GOOD = Survey((HEAD, NODE), (STORE,))


def test_a_good_cluster_passes_every_check() -> None:
    checks = examine(GOOD)
    assert {check.verdict for check in checks} == {"ok"}
    assert all(check.advice == "" for check in checks)


@pytest.mark.parametrize(
    ("change", "name", "verdict"),
    [
        ({"packages": PACKAGES | {"vllm": "0.31.0"}}, "versions", "fail"),
        ({"python": "3.11.9"}, "versions", "fail"),
        ({"ray_gpus": 4.0}, "gpus", "fail"),
        ({"gpus": ()}, "gpus", "fail"),
        ({"drivers": frozenset({"580.10", "570.1"})}, "gpus", "warn"),
        ({"gpus": ("NVIDIA H100 80GB HBM3",) * 4 + ("NVIDIA L4",) * 4}, "gpus", "warn"),
        ({"environment": {"NCCL_P2P_DISABLE": "1"}}, "nccl", "warn"),
        ({"environment": {"NCCL_SOCKET_IFNAME": "ib0"}}, "nccl", "fail"),
        ({"shm_total": 64 << 20}, "shared memory", "fail"),
        ({"shm_total": GIB}, "shared memory", "warn"),
        ({"niceness": 15}, "niceness", "warn"),
        ({"skew": -3.0}, "clocks", "warn"),
        ({"skew": 61.0, "skew_error": 0.5}, "clocks", "fail"),
    ],
)
def test_a_node_that_falls_short_is_named_with_what_to_do(
    change: dict[str, Any], name: str, verdict: Verdict
) -> None:
    bad = [
        each for each in examine(replace(GOOD, nodes=(HEAD, replace(NODE, **change)))) if each.verdict != "ok"
    ]
    assert [(check.name, check.verdict) for check in bad] == [(name, verdict)]
    assert bad[0].advice


@pytest.mark.parametrize(
    ("change", "name", "verdict"),
    [
        ({"policy": "allkeys-lru"}, "store policy", "fail"),
        ({"full_coverage": True}, "store policy", "warn"),
        ({"append_only": False}, "store durability", "warn"),
        ({"replicas": 0}, "store durability", "warn"),
        ({"memory_share": 0.85}, "store memory", "warn"),
        ({"memory_share": 1.0}, "store memory", "fail"),
        ({"skew": 5.0}, "clocks", "warn"),
    ],
)
def test_a_store_that_falls_short_is_named_with_what_to_do(
    change: dict[str, Any], name: str, verdict: Verdict
) -> None:
    bad = [
        each
        for each in examine(replace(GOOD, stores=(STORE, replace(STORE, **change))))
        if each.verdict != "ok"
    ]
    assert [(check.name, check.verdict) for check in bad] == [(name, verdict)]
    assert bad[0].advice


def test_workers_that_differ_in_their_network_settings_fail() -> None:
    other = replace(NODE, address="10.0.0.3", environment={})
    (check,) = [each for each in examine(replace(GOOD, nodes=(HEAD, NODE, other))) if each.verdict != "ok"]
    assert (check.name, check.verdict) == ("nccl", "fail")


def test_a_skew_that_the_reading_itself_explains_is_no_skew() -> None:
    far = replace(NODE, skew=2.0, skew_error=1.9)
    assert {check.verdict for check in examine(replace(GOOD, nodes=(HEAD, far)))} == {"ok"}


def test_what_could_not_be_read_is_a_failure_of_its_own() -> None:
    checks = examine(Survey(away={"ray": "nobody listens", "store": "wrong password"}))
    assert [(check.name, check.verdict, check.found) for check in checks] == [
        ("ray", "fail", "nobody listens"),
        ("store", "fail", "wrong password"),
    ]
    assert all(check.advice for check in checks)


@pytest.mark.parametrize(
    ("names", "lacks"),
    [("eth", ""), ("=eth", "eth"), ("=eth0", ""), ("^docker0", ""), ("ib0,eth0", "ib0"), ("eth0,lo", "")],
)
def test_interfaces_are_matched_as_nccl_matches_them(names: str, lacks: str) -> None:
    assert missing(names, frozenset({"lo", "eth0"})) == lacks
