"""What KubeRay does with a RayService: a cluster, its pods, and on a change a second cluster beside the first."""

import copy
import hashlib
import json
from typing import TYPE_CHECKING

from tests.chart.apiserver.failure import Object
from tests.chart.apiserver.pods import ready
from tests.chart.apiserver.store import Store

if TYPE_CHECKING:
    from tests.chart.apiserver.alive import Alive

MANAGER = "kuberay-operator"
# Of a worker group, what may change without a second cluster; KubeRay mutes more, these are what tests touch.
MUTED = ("replicas", "minReplicas", "maxReplicas")
HASH = "ray.io/hash-without-replicas-and-workers-to-delete"


def reconcile(store: Store, alive: "Alive", service: Object) -> None:
    """Makes the clusters that the spec wants and writes the status; traffic moves when the new cluster is ready."""
    wanted = _hash(service)
    clusters = _clusters(store, service)
    if not any(each["metadata"]["annotations"][HASH] == wanted for each in clusters):
        _make_cluster(store, service, wanted, len(clusters) + 1)
    report(store, alive, service)


def report(store: Store, alive: "Alive", service: Object) -> None:
    """Reads the pods and writes the status; once the pending cluster is ready, it is the active one."""
    wanted, clusters = _hash(service), _clusters(store, service)
    new = next(each for each in clusters if each["metadata"]["annotations"][HASH] == wanted)
    old = [each for each in clusters if each is not new]
    done = bool(pods := pods_of(store, new)) and all(map(ready, pods))
    active, pending = (new, None) if done or not old else (old[0], new)
    serving = done or bool(old)
    conditions = [
        _condition("Ready", serving, "NonZeroServeEndpoints" if serving else "Initializing"),
        _condition(
            "UpgradeInProgress",
            pending is not None,
            "BothActivePendingClustersExist" if pending else "NoPendingCluster",
        ),
    ]
    status: Object = {
        "observedGeneration": service["metadata"]["generation"],
        "conditions": conditions,
        "activeServiceStatus": _cluster_status(active),
        "pendingServiceStatus": _cluster_status(pending) if pending else {},
        "numServeEndpoints": len(pods_of(store, active)) if serving else 0,
        "serviceStatus": "Running" if serving else "",
    }
    alive.status(service, status)


def retire(store: Store, service: Object) -> None:
    """The deletion delay has run out: clusters that are not active go, with their pods."""
    for each in _clusters(store, service):
        if each["metadata"]["name"] != service["status"]["activeServiceStatus"]["rayClusterName"]:
            store.delete("RayCluster", each["metadata"]["namespace"], each["metadata"]["name"])


def pods_of(store: Store, cluster: Object) -> list[Object]:
    name = cluster["metadata"]["name"]
    found = store.every("Pod", cluster["metadata"]["namespace"])
    return [pod for pod in found if pod["metadata"].get("labels", {}).get("ray.io/cluster") == name]


def _clusters(store: Store, service: Object) -> list[Object]:
    uid = service["metadata"]["uid"]
    found = store.every("RayCluster", service["metadata"]["namespace"])
    return [each for each in found if each["metadata"]["ownerReferences"][0]["uid"] == uid]


def _hash(service: Object) -> str:
    config = copy.deepcopy(service["spec"]["rayClusterConfig"])
    for group in config.get("workerGroupSpecs", ()):
        for name in MUTED:
            group.pop(name, None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _make_cluster(store: Store, service: Object, wanted: str, number: int) -> None:
    from tests.chart.apiserver.alive import owner

    meta = service["metadata"]
    name = f"{meta['name']}-{number:05d}"
    labels = {"ray.io/originated-from-cr-name": meta["name"], "ray.io/originated-from-crd": "RayService"}
    config = service["spec"]["rayClusterConfig"]
    cluster = store.create(
        "RayCluster",
        {
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": {HASH: wanted},
                "ownerReferences": [owner(service)],
            },
            "spec": config,
        },
        MANAGER,
    )
    _make_pod(store, cluster, config["headGroupSpec"]["template"], "headgroup", "head", 0)
    for group in config.get("workerGroupSpecs", ()):
        for index in range(group.get("replicas", group.get("minReplicas", 0))):
            _make_pod(store, cluster, group["template"], group["groupName"], "worker", index)


def _make_pod(store: Store, cluster: Object, template: Object, group: str, type_: str, index: int) -> None:
    from tests.chart.apiserver.alive import owner

    pod = copy.deepcopy(template)
    meta = pod.setdefault("metadata", {})
    name = cluster["metadata"]["name"]
    meta |= {"name": f"{name}-{group}-{index}", "namespace": cluster["metadata"]["namespace"]}
    # A name in the template wins; without one KubeRay sets its own, by which it finds its heads.
    meta["labels"] = (
        {"app.kubernetes.io/name": "kuberay"}
        | meta.get("labels", {})
        | {
            "ray.io/cluster": name,
            "ray.io/group": group,
            "ray.io/node-type": type_,
        }
    )
    meta["ownerReferences"] = [owner(cluster)]
    store.create("Pod", pod, MANAGER)


def _cluster_status(cluster: Object) -> Object:
    return {"rayClusterName": cluster["metadata"]["name"], "rayClusterStatus": {"state": "ready"}}


def _condition(type_: str, holds: bool, reason: str) -> Object:
    return {
        "type": type_,
        "status": str(holds),
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-11-01T00:00:00Z",
    }
