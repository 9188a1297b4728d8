"""The rules as they are shipped, and what a query asks for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "deploy/observability"
RULES = sorted((OBSERVABILITY / "rules").glob("*.yaml"))
DERIVED = ("headrace:", "ALERTS")  # series that Prometheus makes of others


@dataclass(frozen=True, slots=True)
class Asked:
    """A selector of a query: its metric, and the labels it is matched by."""

    metric: str
    labels: frozenset[str]


def all_rules() -> list[dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in all_rules() if "alert" in rule}


def records() -> set[str]:
    return {rule["record"] for rule in all_rules() if "record" in rule}


def asked(query: str) -> list[Asked]:
    """Every selector in a query. Raises ValueError if it does not parse."""
    return list(_selectors(promql_parser.parse(query)))


def _selectors(node: Any) -> Iterator[Asked]:
    if isinstance(node, promql_parser.VectorSelector):
        matchers = [*node.matchers.matchers, *(one for group in node.matchers.or_matchers for one in group)]
        yield Asked(node.name or "", frozenset(matcher.name for matcher in matchers))
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield from _selectors(child)
    for child in getattr(node, "args", ()):
        yield from _selectors(child)


GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right) ?\(([^)]*)\)")
RECORDED = {"namespace", "model", "replica"}


def wrong(query: str, series: dict[str, set[str]], recorded: set[str]) -> list[str]:
    """What a query names that does not exist."""
    try:
        selectors = asked(query)
    except ValueError as error:
        return [str(error)]
    faults, labels = [], set[str]()
    for each in selectors:
        if each.metric.startswith(DERIVED):
            labels |= RECORDED | {"alertname", "alertstate", "severity"}
            if each.metric not in {*recorded, "ALERTS"}:
                faults.append(f"no rule records {each.metric}")
        elif each.metric not in series:
            faults.append(f"no metric {each.metric}")
        else:
            labels |= series[each.metric]
            faults += [
                f"{each.metric} has no label {label}" for label in sorted(each.labels - series[each.metric])
            ]
    if not faults:
        grouped = {label.strip() for found in GROUPING.findall(query) for label in found.split(",")} - {""}
        faults += [f"no label {label}" for label in sorted(grouped - labels - {"model"})]
    return faults
