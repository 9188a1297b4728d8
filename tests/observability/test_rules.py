"""Queries of the rules name what there is: metrics of the code's own list, of vLLM's source, and each other."""

import re
from typing import Any

import pytest

from tests.observability.registry import series
from tests.observability.rules import all_rules, asked, records, wrong

RULES = all_rules()
NAMES = [rule.get("alert") or rule["record"] for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_rule_names_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    assert wrong(rule["expr"], series(), records()) == []


def test_a_name_is_recorded_once() -> None:
    assert len(NAMES) == len(set(NAMES))


def test_every_recorded_series_keeps_the_namespace() -> None:
    for rule in RULES:
        for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
            assert "namespace" in labels.split(", "), rule


def test_vllm_is_read_in_both_spellings() -> None:
    for rule in RULES:
        metrics = {each.metric for each in asked(rule["expr"])}
        own = {name.removeprefix("vllm:") for name in metrics if name.startswith("vllm:")}
        through_ray = {name.removeprefix("ray_vllm_") for name in metrics if name.startswith("ray_vllm_")}
        assert own == through_ray, rule


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("headrace_turns", "no metric headrace_turns"),
        ("sum by (modle) (headrace_turns_held)", "no label modle"),
        ('headrace_turns_held{tenant="x"}', "headrace_turns_held has no label tenant"),
        ("headrace:nothing", "no rule records headrace:nothing"),
        ("sum by (", "unclosed left parenthesis"),
    ],
)
def test_a_mistyped_query_is_found(query: str, fault: str) -> None:
    assert wrong(query, series(), records()) == [fault]
