"""What only pods have: logs, eviction under budgets, and the proxy. Their contents are what a test scripted."""

from dataclasses import dataclass, field

from tests.chart.apiserver.failure import Failure, Object
from tests.chart.apiserver.selectors import selector_matches
from tests.chart.apiserver.store import Store

Where = tuple[str, str, str]  # namespace, pod, and container or port


@dataclass(slots=True)
class Scripts:
    """What containers say and what their ports answer to GET, by name."""

    logs: dict[Where, str] = field(default_factory=dict)
    previous: dict[Where, str] = field(default_factory=dict)
    pages: dict[tuple[str, str, str, str], str] = field(default_factory=dict)  # and the path

    def log(self, pod: Object, query: dict[str, str]) -> str:
        meta, names = pod["metadata"], [each["name"] for each in pod["spec"]["containers"]]
        names += [each["name"] for each in pod["spec"].get("initContainers", ())]
        container = query.get("container", names[0])
        if container not in names:
            raise Failure("BadRequest", f"container {container} is not valid for pod {meta['name']}")
        where = (meta["namespace"], meta["name"], container)
        source = self.previous if query.get("previous") == "true" else self.logs
        if source is self.previous and where not in source:
            said = f'previous terminated container "{container}" in pod "{meta["name"]}" not found'
            raise Failure("BadRequest", said)
        lines = source.get(where, "").splitlines(keepends=True)
        return "".join(lines[-int(query["tailLines"]) :] if "tailLines" in query else lines)

    def page(self, namespace: str, name: str, path: str) -> str | None:
        pod, _, port = name.partition(":")
        return self.pages.get((namespace, pod, port, path))


def budgets_of(store: Store, pod: Object) -> list[Object]:
    labels = pod["metadata"].get("labels", {})
    found = store.every("PodDisruptionBudget", pod["metadata"]["namespace"])
    return [each for each in found if selector_matches(each["spec"].get("selector", {}), labels)]


def evict(store: Store, pod: Object, *, dry: bool) -> None:
    """Raises Failure (TooManyRequests) if a budget allows no disruption."""
    meta = pod["metadata"]
    for budget in budgets_of(store, pod):
        spare = allowed_disruptions(store, budget)
        if spare < (1 if ready(pod) else 0) and not _always(budget, pod):
            name = budget["metadata"]["name"]
            causes = [
                {"reason": "DisruptionBudget", "message": f"The disruption budget {name} needs more pods."}
            ]
            said = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Failure("TooManyRequests", said, store.kinds.of("Pod"), meta["name"], causes)
    store.delete("Pod", meta["namespace"], meta["name"], dry=dry)


def _always(budget: Object, pod: Object) -> bool:
    return not ready(pod) and budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow"


def allowed_disruptions(store: Store, budget: Object) -> int:
    """Pods of the budget that may go. The real controller asks a pod's owner for its scale; where the owner has none,
    as a RayCluster, it can only work with an integer minAvailable, and any other budget lets nobody go."""
    spec, namespace = budget["spec"], budget["metadata"]["namespace"]
    found = store.every("Pod", namespace)
    pods = [p for p in found if selector_matches(spec.get("selector", {}), p["metadata"].get("labels", {}))]
    healthy = sum(1 for pod in pods if ready(pod))
    if isinstance(spec.get("minAvailable"), int):
        return healthy - int(spec["minAvailable"])
    expected = _expected(store, pods)
    if expected is None:
        return -1
    if "minAvailable" in spec:
        return healthy - _count(spec["minAvailable"], expected)
    return healthy - (expected - _count(spec.get("maxUnavailable", 1), expected))


def _expected(store: Store, pods: list[Object]) -> int | None:
    owners = {
        (owner["kind"], pod["metadata"]["namespace"], owner["name"])
        for pod in pods
        for owner in pod["metadata"].get("ownerReferences", ())
    }
    if any(not store.kinds.of(kind).scale for kind, _, _ in owners):
        return None
    return sum(int(store.get(*owner)["spec"]["replicas"]) for owner in owners)


def _count(written: int | str, of: int) -> int:
    return -(-of * int(written.rstrip("%")) // 100) if isinstance(written, str) else written


def ready(pod: Object) -> bool:
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
