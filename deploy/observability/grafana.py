"""What a dashboard is, in few words, and the JSON that Grafana 10 and later reads for it."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["timeseries", "stat", "table"]

SCHEMA_VERSION = 39  # of Grafana 10.4; later ones migrate it
TAG = "headrace"
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHTS: dict[Kind, int] = {"timeseries": 8, "stat": 4, "table": 8}
OBJECTIVE = ((0.0, "red"), (0.99, "yellow"), (0.999, "green"))
LATE = ((0.0, "red"), (0.9, "yellow"), (0.99, "green"))
USE = ((0.0, "green"), (0.7, "yellow"), (0.9, "red"))
NONE_WANTED = ((0.0, "green"), (1.0, "red"))
SOME_WANTED = ((0.0, "red"), (1.0, "green"))


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` by legend, which names a series by its labels, and a table's column. `width` is in columns of 24.
    `steps` are thresholds: from a value on, a colour. `most` is the top of the axis."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    help: str = ""
    steps: tuple[tuple[float, str], ...] = ()
    most: float | None = None
    stacked: bool = False
    link: str = ""  # of a table's rows


@dataclass(frozen=True, slots=True)
class Row:
    """A question that an operator asks."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """Values of `label` in the series of `selector`."""

    name: str
    selector: str
    label: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    name: str
    title: str
    help: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"headrace-{dashboard.name}",
        "title": f"Headrace / {dashboard.title}",
        "description": dashboard.help,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [_siblings()],
        "templating": {"list": [_source(), *map(_variable, dashboard.variables)]},
        "panels": _laid_out(dashboard.rows),
    }


def _siblings() -> dict[str, Any]:
    kept = {"keepTime": True, "includeVars": True, "asDropdown": False, "targetBlank": False}
    return {"type": "dashboards", "title": "Headrace", "tags": [TAG], **kept}


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.selector}, {variable.label})"
    return {
        "name": variable.name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": variable.name},
        "definition": query,
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _laid_out(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Panels from left to right, a new line where one does not fit."""
    shown: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        shown.append(
            {"id": len(shown) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place}
            | {"panels": []}
        )
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            height = HEIGHTS[panel.kind]
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            shown.append(_panel(panel) | {"id": len(shown) + 1, "gridPos": place})
            x, tallest = x + panel.width, max(tallest, height)
        y += tallest
    return shown


def _panel(panel: Panel) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "targets": [_target(panel.kind, n, *query) for n, query in enumerate(panel.queries.items())],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel.kind),
    }
    if panel.kind == "table":
        named = {f"Value #{string.ascii_uppercase[n]}": legend for n, legend in enumerate(panel.queries)}
        shape["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": named}},
        ]
    return shape


def _target(kind: Kind, number: int, legend: str, expr: str) -> dict[str, Any]:
    target = {
        "refId": string.ascii_uppercase[number],
        "datasource": SOURCE,
        "expr": expr,
        "legendFormat": legend or "__auto",
    }
    if kind == "timeseries":
        return target | {"range": True}
    return target | {"instant": True, "range": False} | ({"format": "table"} if kind == "table" else {})


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = panel.steps or ((0.0, "green"),)
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "noValue": "none",
        "thresholds": {
            "mode": "absolute",
            # The first step has no lower end.
            "steps": [
                {"value": value if n else None, "color": color} for n, (value, color) in enumerate(steps)
            ],
        },
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.link:
        defaults["links"] = [{"title": "Open", "url": panel.link}]
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
            "showPoints": "never",
        }
    return defaults


def _options(kind: Kind) -> dict[str, Any]:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"}
    if kind == "table":
        return {"showHeader": True}
    return {
        "tooltip": {"mode": "multi", "sort": "desc"},
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    }
