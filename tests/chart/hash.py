"""What KubeRay 1.7 compares to decide on a second Ray cluster (GenerateHashWithoutReplicasAndWorkersToDelete)."""

import copy
import hashlib
import json
from typing import Any

from tests.chart.helm import Object

# Of a worker group these follow the load; of a cluster these are about its operation.
OF_GROUP = ("replicas", "minReplicas", "maxReplicas")
OF_CLUSTER = ("upgradeStrategy", "suspend")
OF_POD = ("tolerations", "schedulingGates")


def inputs(service: Object) -> Any:
    """rayClusterConfig without what KubeRay changes in place, or not at all."""
    cluster = copy.deepcopy(service["spec"]["rayClusterConfig"])
    workers = cluster.get("workerGroupSpecs", [])
    for key in OF_CLUSTER:
        cluster.pop(key, None)
    for group in workers:
        for key in OF_GROUP:
            group.pop(key, None)
        group.get("scaleStrategy", {}).pop("workersToDelete", None)
    for group in [cluster["headGroupSpec"], *workers]:
        for key in OF_POD:
            group["template"]["spec"].pop(key, None)
    return cluster


def digest(service: Object) -> str:
    return hashlib.sha1(json.dumps(inputs(service), sort_keys=True).encode()).hexdigest()
