"""What KubeRay 1.7 refuses or gets wrong, which its schema does not say.

rayservice_types.go, raycluster_types.go, utils/validation.go and common/pod.go of v1.7.0.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.chart.checks.selectors import name
from tests.chart.helm import Object
from tests.chart.manifests import Manifests

DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
STRATEGIES = {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}
# GCS fault tolerance is told in one place; these are the old ones.
OLD_FT = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "RAY_external_storage_namespace"}


def services(m: Manifests) -> Iterator[tuple[Object, Any]]:
    yield from ((item, item["spec"]["rayClusterConfig"]) for item in m.of("RayService"))


def groups(cluster: Any) -> list[Any]:
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())]


def names_fit(m: Manifests) -> Iterator[str]:
    for item in m.of("RayService"):
        if len(item["metadata"]["name"]) > 47 or not DNS_1035.match(item["metadata"]["name"]):
            yield f"{name(item)}: its name has to be a DNS-1035 label of at most 47 characters"


def strategies_are_known(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        strategy = item["spec"].get("upgradeStrategy", {})
        kind = strategy.get("type", "NewCluster")
        if kind not in STRATEGIES:
            yield f"{name(item)}: upgradeStrategy.type is {kind}"
        if kind == "NewClusterWithIncrementalUpgrade" and not (
            cluster.get("enableInTreeAutoscaling") and strategy.get("clusterUpgradeOptions")
        ):
            yield f"{name(item)}: an incremental upgrade needs the autoscaler and clusterUpgradeOptions"
        if "upgradeStrategy" in cluster:
            yield f"{name(item)}: upgradeStrategy in rayClusterConfig is refused under a RayService"


def heads_are_unnamed(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        if "name" in cluster["headGroupSpec"].get("headService", {}).get("metadata", {}):
            yield f"{name(item)}: headService has a name, which two clusters would share"


def groups_are_bounded(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        workers = cluster.get("workerGroupSpecs", ())
        twice = [
            each for each, times in Counter(group["groupName"] for group in workers).items() if times > 1
        ]
        yield from (f"{name(item)}: two groups are named {each}" for each in twice)
        for group in workers:
            low, now, high = (group.get(key, 1) for key in ("minReplicas", "replicas", "maxReplicas"))
            if not 0 <= low <= now <= high or high < 1:
                yield f"{name(item)}: group {group['groupName']} has {low} <= {now} <= {high} replicas"


def autoscalers_say_their_version(m: Manifests) -> Iterator[str]:
    """v2 is only told to the pods where it is written; its pods must not be restarted in place."""
    for item, cluster in services(m):
        if not cluster.get("enableInTreeAutoscaling"):
            continue
        if cluster.get("autoscalerOptions", {}).get("version") != "v2":
            yield f"{name(item)}: autoscalerOptions.version is not v2"
        for group in groups(cluster):
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{name(item)}: restartPolicy has to be Never under the autoscaler"


def fault_tolerance_is_told_once(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        options = cluster.get("gcsFaultToleranceOptions")
        if options is None:
            continue
        if "externalStorageNamespace" in options:
            yield f"{name(item)}: externalStorageNamespace would be shared by two clusters"
        if "redisPassword" not in options:
            yield f"{name(item)}: Ray's state would lie in a store without a password"
        head = cluster["headGroupSpec"]
        told = {each["name"] for each in head["template"]["spec"]["containers"][0].get("env", ())}
        yield from (
            f"{name(item)}: {each} is refused beside gcsFaultToleranceOptions" for each in OLD_FT & told
        )
        annotations = head["template"].get("metadata", {}).get("annotations", {}) | (
            item["metadata"].get("annotations") or {}
        )
        if "redis-password" in head.get("rayStartParams", {}) or "ray.io/ft-enabled" in annotations:
            yield f"{name(item)}: fault tolerance is told twice"


def tokens_are_demanded(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        options = cluster.get("authOptions", {})
        if options.get("mode") != "token" or not options.get("secretName"):
            yield f"{name(item)}: authOptions has to say mode token and the Secret: else the API is open"
        if options.get("enableK8sTokenAuth"):
            yield f"{name(item)}: enableK8sTokenAuth is refused for a RayService"
        if tuple(map(int, cluster["rayVersion"].split(".")[:2])) < (2, 53):
            yield f"{name(item)}: Ray {cluster['rayVersion']} has no sound token authentication"


def heads_have_the_serve_port(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        ports = cluster["headGroupSpec"]["template"]["spec"]["containers"][0].get("ports", ())
        if not any(port.get("name", "").startswith("serve") for port in ports):
            yield f"{name(item)}: the head's first container has no port named serve"


def heads_run_no_model(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        params = cluster["headGroupSpec"].get("rayStartParams", {})
        if params.get("num-cpus") != "0" or params.get("num-gpus", "0") != "0":
            yield f"{name(item)}: the head offers CPUs or GPUs, so a replica may be placed on it"


def start_up_has_no_end(m: Manifests) -> Iterator[str]:
    """After ray.io/initializing-timeout a RayService is dead for good; a large model takes long to load."""
    for item in m.of("RayService"):
        if "ray.io/initializing-timeout" in (item["metadata"].get("annotations") or {}):
            yield f"{name(item)}: ray.io/initializing-timeout makes a slow start final"


def ray_templates_do_not_change_with_the_chart(m: Manifests) -> Iterator[str]:
    for item, cluster in services(m):
        for group in groups(cluster):
            metadata = group["template"].get("metadata", {})
            marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
            for key in sorted(marks):
                if key.startswith("checksum/") or key in ("helm.sh/chart", "app.kubernetes.io/version"):
                    yield f"{name(item)}: {key} in a pod template starts a second cluster with each chart"


def heads_keep_kuberays_name(m: Manifests) -> Iterator[str]:
    """Its Services of heads select these; a template's own would win over them (common/service.go, common/pod.go)."""
    for item, cluster in services(m):
        for group in groups(cluster):
            own = (group["template"].get("metadata", {}).get("labels") or {}).keys()
            for key in sorted({"app.kubernetes.io/name", "app.kubernetes.io/created-by"} & own):
                yield f"{name(item)}: {key} in a pod template empties KubeRay's own Services"


CHECKS = (
    names_fit,
    strategies_are_known,
    heads_are_unnamed,
    groups_are_bounded,
    autoscalers_say_their_version,
    fault_tolerance_is_told_once,
    tokens_are_demanded,
    heads_have_the_serve_port,
    heads_run_no_model,
    start_up_has_no_end,
    heads_keep_kuberays_name,
    ray_templates_do_not_change_with_the_chart,
)
