"""What points at pods, points at pods; what scales or guards a workload, does so alone and agrees with it."""

from collections import Counter
from collections.abc import Iterator

from tests.chart.helm import Object
from tests.chart.manifests import Manifests, Pod, matches


def name(item: Object) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def workloads_select_their_pods(m: Manifests) -> Iterator[str]:
    for item in m.of("Deployment", "StatefulSet", "DaemonSet"):
        if not matches(item["spec"]["selector"], item["spec"]["template"]["metadata"].get("labels") or {}):
            yield f"{name(item)}: its selector does not match its own pods"
        if "app.kubernetes.io/version" in item["spec"]["selector"].get("matchLabels", {}):
            yield f"{name(item)}: its selector has the version in it: it cannot be upgraded"


def workloads_do_not_share_pods(m: Manifests) -> Iterator[str]:
    for item in m.of("Deployment", "StatefulSet", "DaemonSet"):
        for pod in m.pods():
            if pod.owner is not item and matches(item["spec"]["selector"], pod.labels):
                yield f"{name(item)}: its selector matches pods of {pod.name} as well"


def services_reach_one_workload(m: Manifests) -> Iterator[str]:
    for item in m.of("Service"):
        owners = {pod.name for pod in m.selected(item["spec"].get("selector"))}
        if len(owners) != 1:
            yield f"{name(item)}: selects pods of {sorted(owners) or 'nothing'}"


def service_ports_exist(m: Manifests) -> Iterator[str]:
    for item in m.of("Service"):
        for port in item["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in m.selected(item["spec"].get("selector")):
                if target not in _names_and_numbers(pod):
                    yield f"{name(item)}: {pod.name} has no port {target}"


def _names_and_numbers(pod: Pod) -> set[str | int]:
    return {each for port in pod.ports() for each in (port.get("name", ""), port["containerPort"])}


def ports_are_told_once(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        names = Counter(port["name"] for port in pod.ports() if "name" in port)
        yield from (f"{pod.name}: two ports are named {each}" for each, times in names.items() if times > 1)


def probes_ask_ports_that_exist(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        for container in pod.containers:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = [
                    part["port"]
                    for part in container.get(kind, {}).values()
                    if isinstance(part, dict) and "port" in part
                ]
                known = {
                    each
                    for port in container.get("ports", ())
                    for each in (port.get("name"), port["containerPort"])
                }
                yield from (
                    f"{pod.name}: {kind} asks port {each}, which is not told"
                    for each in asked
                    if each not in known
                )


def monitors_find_ports(m: Manifests) -> Iterator[str]:
    for item in m.of("PodMonitor"):
        pods = [pod for pod in m.pods() if matches(item["spec"]["selector"], pod.labels)]
        for endpoint in item["spec"]["podMetricsEndpoints"]:
            known = [pod for pod in pods if endpoint.get("port") in _names_and_numbers(pod)]
            if len(known) != len(pods) or not pods:
                yield f"{name(item)}: finds {len(pods)} pods, {len(known)} of them with the port {endpoint.get('port')}"
    for item in m.of("ServiceMonitor"):
        services = [
            each for each in m.of("Service") if matches(item["spec"]["selector"], each["metadata"]["labels"])
        ]
        for endpoint in item["spec"]["endpoints"]:
            known = [
                each
                for each in services
                if endpoint["port"] in {port.get("name") for port in each["spec"]["ports"]}
            ]
            if len(known) != 1:
                yield f"{name(item)}: finds {len(known)} Services with the port {endpoint['port']}, not one"


def budgets_guard_one_workload(m: Manifests) -> Iterator[str]:
    for item in m.of("PodDisruptionBudget"):
        spec = item["spec"]
        pods = [pod for pod in m.pods() if matches(spec.get("selector"), pod.labels)]
        if len({(pod.owner["metadata"]["name"], pod.role) for pod in pods}) != 1:
            yield f"{name(item)}: guards {sorted(pod.name for pod in pods) or 'nothing'}"
        if ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield f"{name(item)}: exactly one of minAvailable and maxUnavailable is to be said"
        if spec.get("maxUnavailable") in (0, "0", "0%") or spec.get("minAvailable") == "100%":
            yield f"{name(item)}: lets no node be drained"


def budgets_leave_a_pod_to_go(m: Manifests) -> Iterator[str]:
    for item in m.of("PodDisruptionBudget"):
        stay, pods = (
            item["spec"].get("minAvailable"),
            [pod for pod in m.pods() if matches(item["spec"]["selector"], pod.labels)],
        )
        if isinstance(stay, int) and stay >= sum(pod.replicas for pod in pods) > 0:
            yield f"{name(item)}: with {stay} pods that must stay, lets no node be drained"


def budgets_of_ray_count_pods(m: Manifests) -> Iterator[str]:
    """A RayCluster has no scale subresource, and then budgets take no share and no maxUnavailable."""
    for item in m.of("PodDisruptionBudget"):
        owners = {pod.owner["kind"] for pod in m.pods() if matches(item["spec"]["selector"], pod.labels)}
        if "RayService" in owners and not isinstance(item["spec"].get("minAvailable"), int):
            yield f"{name(item)}: of Ray's pods minAvailable has to be said, as a whole number"


def pods_have_one_budget(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        budgets = [
            each for each in m.of("PodDisruptionBudget") if matches(each["spec"].get("selector"), pod.labels)
        ]
        if len(budgets) > 1:
            yield f"{pod.name}: two budgets guard it, and then it cannot be evicted at all"


def scalers_have_targets_of_their_own(m: Manifests) -> Iterator[str]:
    targets = Counter(
        (each["spec"]["scaleTargetRef"]["name"]) for each in m.of("HorizontalPodAutoscaler", "ScaledObject")
    )
    for target, scalers in targets.items():
        deployment = m.named("Deployment", target)
        if deployment is None:
            yield f"a scaler's target {target} is no Deployment of the chart"
        elif "replicas" in deployment["spec"]:
            yield f"Deployment {target}: has replicas of its own although a scaler sets them"
        if scalers > 1:
            yield f"Deployment {target}: {scalers} scalers set its replicas"


def scalers_have_room(m: Manifests) -> Iterator[str]:
    for item in m.of("HorizontalPodAutoscaler", "ScaledObject"):
        spec = item["spec"]
        low = spec.get("minReplicas", spec.get("minReplicaCount", 1))
        high = spec.get("maxReplicas", spec.get("maxReplicaCount", 100))
        if not 1 <= low <= high:
            yield f"{name(item)}: from {low} to {high} replicas"


def unscaled_workloads_say_replicas(m: Manifests) -> Iterator[str]:
    scaled = {
        each["spec"]["scaleTargetRef"]["name"] for each in m.of("HorizontalPodAutoscaler", "ScaledObject")
    }
    for item in m.of("Deployment"):
        if item["metadata"]["name"] not in scaled and "replicas" not in item["spec"]:
            yield f"{name(item)}: nobody says how many replicas it has"


CHECKS = (
    workloads_select_their_pods,
    workloads_do_not_share_pods,
    services_reach_one_workload,
    service_ports_exist,
    ports_are_told_once,
    probes_ask_ports_that_exist,
    monitors_find_ports,
    budgets_guard_one_workload,
    budgets_leave_a_pod_to_go,
    budgets_of_ray_count_pods,
    pods_have_one_budget,
    scalers_have_targets_of_their_own,
    scalers_have_room,
    unscaled_workloads_say_replicas,
)
