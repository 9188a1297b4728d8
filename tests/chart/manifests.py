"""Rendered objects as a cluster would hold them: by kind, with the pods that they lead to."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.chart.helm import NAMESPACE, Object, Question, objects

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pod:
    """Pods that a workload makes. `role` tells Ray's groups apart: head, worker; else the workload's kind."""

    owner: Object
    role: str
    metadata: Object
    spec: Object
    replicas: int

    @property
    def name(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']} ({self.role})"

    @property
    def labels(self) -> Labels:
        return dict(self.metadata.get("labels") or {}) | self._of_kuberay()

    @property
    def component(self) -> str:
        return self.labels.get("app.kubernetes.io/component", "")

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def ports(self) -> Iterator[Object]:
        for container in self.spec["containers"]:
            yield from container.get("ports", ())

    def _of_kuberay(self) -> dict[str, str]:
        """Labels that the operator adds: the group's kind always, its own name where the template has none."""
        if self.owner["kind"] != "RayService":
            return {}
        own = self.metadata.get("labels") or {}
        return {"app.kubernetes.io/name": "kuberay"} | own | {"ray.io/node-type": self.role}


@dataclass(frozen=True, slots=True)
class Manifests:
    """`outside`: every text in the values, which may name what the cluster has already."""

    objects: list[Object]
    version: str = "1.34"
    outside: frozenset[str] = field(default_factory=frozenset)

    def of(self, *kinds: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object | None:
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def pods(self) -> list[Pod]:
        return [pod for each in self.objects for pod in _pods(each)]

    def selected(self, labels: Labels | None) -> list[Pod]:
        """Pods that have `labels`; none for an absent selector."""
        return [pod for pod in self.pods() if labels and labels.items() <= pod.labels.items()]

    def gateway_settings(self) -> dict[str, Any]:
        """What gateway.toml says."""
        import tomllib

        files = (each.get("data", {}) for each in self.of("ConfigMap"))
        return tomllib.loads(next(data["gateway.toml"] for data in files if "gateway.toml" in data))

    def copy(self) -> "Manifests":
        return Manifests(copy.deepcopy(self.objects), self.version, self.outside)


def manifests(question: Question) -> Manifests:
    texts = [yaml.safe_load(path.read_text()) for path in question.files]
    sets = [json.loads(each.partition("=")[2]) for each in question.sets]
    return Manifests(objects(question), question.version, frozenset(strings([texts, sets])))


def strings(node: Any) -> Iterator[str]:
    match node:
        case str():
            yield node
        case dict():
            for each in node.values():
                yield from strings(each)
        case list():
            for each in node:
                yield from strings(each)


def _pods(item: Object) -> Iterator[Pod]:
    spec = item.get("spec", {})
    match item["kind"]:
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
            template = spec["template"]
            yield Pod(item, item["kind"], template["metadata"], template["spec"], spec.get("replicas", 1))
        case "Pod":
            yield Pod(item, "Pod", item["metadata"], spec, 1)
        case "RayService":
            yield from _of_ray(item, spec["rayClusterConfig"])


def _of_ray(item: Object, cluster: Object) -> Iterator[Pod]:
    head = cluster["headGroupSpec"]["template"]
    yield Pod(item, "head", head.get("metadata", {}), head["spec"], 1)
    for group in cluster.get("workerGroupSpecs", ()):
        template = group["template"]
        count = group.get("replicas", 1) * group.get("numOfHosts", 1)
        yield Pod(item, "worker", template.get("metadata", {}), template["spec"], count)


def matches(selector: Object | None, labels: Labels) -> bool:
    """Whether a label selector of Kubernetes selects `labels`. An empty one selects all, an absent one nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _holds(each, labels) for each in selector.get("matchExpressions", ())
    )


def _holds(term: Object, labels: Labels) -> bool:
    value, values = labels.get(term["key"]), term.get("values", ())
    held = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return held[term["operator"]]


__all__ = ["NAMESPACE", "Labels", "Manifests", "Pod", "manifests", "matches", "strings"]
