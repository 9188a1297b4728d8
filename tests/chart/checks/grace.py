"""Times that have to add up: what a pod is given to end, and what its parts take."""

from collections.abc import Iterator

from cluster.serving.app import SHUTDOWN_MARGIN_S
from tests.chart.checks.serving import replica_settings
from tests.chart.manifests import Manifests, Pod

GATEWAY_MARGIN_S = 5  # for the gateway's processes to end once its turns have
KUBELET_S = 30  # terminationGracePeriodSeconds where none is said
RAY_DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


def gateways_have_time_to_drain(m: Manifests) -> Iterator[str]:
    settings = m.gateway_settings()
    needed = settings["drain_delay"] + settings["drain_grace"] + GATEWAY_MARGIN_S
    for pod in m.pods():
        if pod.component == "gateway" and pod.role == "Deployment":
            given, pause = pod.spec.get("terminationGracePeriodSeconds", KUBELET_S), pre_stop(pod)
            if pause + needed > given:
                yield f"{pod.name}: preStop {pause} s and the drain's {needed} s do not fit into its {given} s"


def gateways_leave_the_endpoints_first(m: Manifests) -> Iterator[str]:
    """Either preStop or the drain's delay waits until no new connection comes."""
    settings = m.gateway_settings()
    for pod in m.pods():
        if (
            pod.component == "gateway"
            and pod.role == "Deployment"
            and not pre_stop(pod) + settings["drain_delay"] >= 5
        ):
            yield f"{pod.name}: refuses turns before endpoints can have heard that it ends"


def pre_stop(pod: Pod) -> float:
    hooks = [container.get("lifecycle", {}).get("preStop", {}) for container in pod.spec["containers"]]
    return max((hook.get("sleep", {}).get("seconds", 0) for hook in hooks), default=0)


def replicas_have_time_to_drain(m: Manifests) -> Iterator[str]:
    """Ray's drain lets Serve stop the replica, which takes its grace and Serve's margin."""
    for pod in m.pods():
        if pod.owner["kind"] != "RayService":
            continue
        given = pod.spec.get("terminationGracePeriodSeconds", KUBELET_S)
        drain = float(environment(pod).get(RAY_DRAIN, 0))
        needed = replica_settings(pod.owner)["drain_grace_s"] + SHUTDOWN_MARGIN_S
        if pod.role == "worker" and drain < needed:
            yield f"{pod.name}: {RAY_DRAIN} is {drain}, below the replica's {needed} s"
        if pod.role == "worker" and given < max(drain, needed):
            yield f"{pod.name}: is killed after {given} s, within the drain of {max(drain, needed)} s"


def environment(pod: Pod) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod.spec["containers"][0].get("env", ())}


def old_clusters_outlive_their_turns(m: Manifests) -> Iterator[str]:
    longest = m.gateway_settings().get("max_turn_seconds", 600)
    for item in m.of("RayService"):
        delay = item["spec"].get("rayClusterDeletionDelaySeconds", 60)
        if delay < longest:
            name = item["metadata"]["name"]
            yield f"RayService {name}: the old cluster goes after {delay} s, a turn may take {longest} s"


def ray_is_not_stopped_at_once(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        hook = pod.spec["containers"][0].get("lifecycle", {}).get("preStop", {})
        if "ray stop" in str(hook):
            yield f"{pod.name}: preStop `ray stop` kills the replicas before they drain"


CHECKS = (
    gateways_have_time_to_drain,
    gateways_leave_the_endpoints_first,
    replicas_have_time_to_drain,
    old_clusters_outlive_their_turns,
    ray_is_not_stopped_at_once,
)
