"""`kubectl get` as rows: the server makes the table, the client prints it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.chart.apiserver.failure import Object
from tests.chart.apiserver.kinds import Kind

Cell = Callable[[Object], Any]


def _at(*steps: str, default: Any = "") -> Cell:
    def read(item: Object) -> Any:
        value: Any = item
        for step in steps:
            value = value.get(step, {}) if isinstance(value, dict) else {}
        return default if value == {} else value

    return read


def _ready_of(wanted: str, got: str) -> Cell:
    return lambda item: f"{item.get('status', {}).get(got, 0)}/{item.get('spec', {}).get(wanted, 0)}"


def _containers(item: Object) -> list[Object]:
    return list(item.get("status", {}).get("containerStatuses", []))


def _pod_ready(item: Object) -> str:
    ready = sum(1 for each in _containers(item) if each.get("ready"))
    return f"{ready}/{len(item['spec'].get('containers', ()))}"


def _pod_status(item: Object) -> str:
    if "deletionTimestamp" in item["metadata"]:
        return "Terminating"
    for each in _containers(item):
        state = each.get("state", {})
        if reason := (state.get("waiting") or state.get("terminated") or {}).get("reason"):
            return str(reason)
    return str(item["status"].get("reason") or item["status"].get("phase", "Pending"))


def _restarts(item: Object) -> int:
    return sum(each.get("restartCount", 0) for each in _containers(item))


def _condition(type_: str) -> Cell:
    def read(item: Object) -> str:
        found = (c for c in item.get("status", {}).get("conditions", ()) if c["type"] == type_)
        return next((str(c["status"]) for c in found), "Unknown")

    return read


COLUMNS: dict[str, dict[str, Cell]] = {
    "Pod": {"Ready": _pod_ready, "Status": _pod_status, "Restarts": _restarts},
    "Deployment": {
        "Ready": _ready_of("replicas", "readyReplicas"),
        "Up-to-date": _at("status", "updatedReplicas", default=0),
        "Available": _at("status", "availableReplicas", default=0),
    },
    "StatefulSet": {"Ready": _ready_of("replicas", "readyReplicas")},
    "Service": {"Type": _at("spec", "type"), "Cluster-IP": _at("spec", "clusterIP", default="<none>")},
    "HorizontalPodAutoscaler": {
        "Minpods": _at("spec", "minReplicas", default=1),
        "Maxpods": _at("spec", "maxReplicas"),
        "Replicas": _at("status", "currentReplicas", default=0),
    },
    "RayService": {
        "Service Status": _at("status", "serviceStatus"),
        "Num Serve Endpoints": _at("status", "numServeEndpoints", default=0),
    },
    "Job": {"Status": _condition("Complete"), "Completions": _ready_of("completions", "succeeded")},
    "Event": {
        "Type": _at("type"),
        "Reason": _at("reason"),
        "Object": lambda e: (
            f"{e['involvedObject'].get('kind', '').lower()}/{e['involvedObject'].get('name', '')}"
        ),
        "Message": _at("message"),
    },
    "Secret": {"Type": _at("type", default="Opaque"), "Data": lambda item: len(item.get("data", {}))},
    "ConfigMap": {"Data": lambda item: len(item.get("data", {}))},
    "Node": {"Status": lambda item: "Ready" if _condition("Ready")(item) == "True" else "NotReady"},
}


def table(kind: Kind, items: list[Object], version: str, now: datetime) -> Object:
    columns = COLUMNS.get(kind.kind, {})
    heads = [("Name", "string"), *((name, "string") for name in columns), ("Age", "string")]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name,
                "type": type_,
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 0,
            }
            for name, type_ in heads
        ],
        "rows": [
            {
                "cells": [
                    item["metadata"]["name"],
                    *(read(item) for read in columns.values()),
                    _age(item, now),
                ],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": item["metadata"],
                },
            }
            for item in items
        ],
    }


def _age(item: Object, now: datetime) -> str:
    made = datetime.fromisoformat(item["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
    return f"{max(0, int((now - made).total_seconds()))}s"
