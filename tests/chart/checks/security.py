"""The restricted Pod Security Standard, re-stated, for all pods; and images that say what they are."""

import re
from collections.abc import Iterator

from tests.chart.helm import Object
from tests.chart.manifests import Manifests, Pod

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pods_are_restricted(m: Manifests) -> Iterator[str]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, restricted, as of 1.37."""
    for pod in m.pods():
        yield from (f"{pod.name}: {text}" for text in _of_pod(pod))
        for container in [*pod.containers, *_added_by_kuberay(pod)]:
            yield from (f"{pod.name}, {container['name']}: {text}" for text in _of_container(pod, container))


def _of_pod(pod: Pod) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield f"{key} is on"
    context = pod.spec.get("securityContext", {})
    if context.get("sysctls") or context.get("windowsOptions"):
        yield "sysctls or windowsOptions are set"
    if context.get("runAsUser") == 0:
        yield "runs as root"
    for volume in pod.spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES and not _is_the_checkpoint(volume):
            yield f"volume {volume['name']} is a {', '.join(kinds)}"


def _is_the_checkpoint(volume: Object) -> bool:
    """The one exception: `checkpoint.source: node` reads a folder of the node, which no restricted pod may."""
    return volume["name"].startswith("checkpoint") and "hostPath" in volume


def _of_container(pod: Pod, container: Object) -> Iterator[str]:
    own, shared = container.get("securityContext", {}), pod.spec.get("securityContext", {})
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "does not drop ALL capabilities"
    if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
        yield "runAsNonRoot is not true"
    if own.get("runAsUser") == 0:
        yield "runs as root"
    profile = own.get("seccompProfile", shared.get("seccompProfile", {})).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"its seccomp profile is {profile}"
    if own.get("procMount", "Default") != "Default" or "hostPort" in str(container.get("ports", "")):
        yield "has a procMount or a hostPort"


def _added_by_kuberay(pod: Pod) -> list[Object]:
    """The autoscaler beside a head. Other containers that KubeRay adds take Ray's own security context."""
    cluster = pod.owner["spec"].get("rayClusterConfig", {}) if pod.role == "head" else {}
    if not cluster.get("enableInTreeAutoscaling"):
        return []
    return [{"name": "autoscaler", **cluster.get("autoscalerOptions", {})}]


def roots_are_read_only(m: Manifests) -> Iterator[str]:
    """Of what is not Ray: Ray's workers write to where their libraries do."""
    for pod in m.pods():
        if pod.owner["kind"] == "RayService":
            continue
        for container in pod.containers:
            if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
                yield f"{pod.name}, {container['name']}: its root file system can be written"


def tokens_are_mounted_where_needed(m: Manifests) -> Iterator[str]:
    """Only Ray's autoscaler talks to the API server, and KubeRay mounts its token itself."""
    for pod in m.pods():
        account = m.named("ServiceAccount", pod.spec.get("serviceAccountName", ""))
        mounted = pod.spec.get(
            "automountServiceAccountToken", (account or {}).get("automountServiceAccountToken", True)
        )
        needed = pod.role == "head" and pod.owner["spec"]["rayClusterConfig"].get("enableInTreeAutoscaling")
        if mounted and not needed:
            yield f"{pod.name}: a token of the API server is mounted that nothing reads"


def images_say_what_they_are(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        for container in pod.containers:
            image = container.get("image", "")
            tag = re.search(r"(?:@sha256:[0-9a-f]{64}|:([A-Za-z0-9_][A-Za-z0-9._-]*))$", image)
            if tag is None or tag.group(1) == "latest":
                yield f"{pod.name}, {container['name']}: image {image!r} has no tag or digest that stays"


def containers_ask_for_resources(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        for container in pod.spec["containers"]:
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
                yield f"{pod.name}, {container['name']}: asks for no CPU or memory"
            if "memory" not in resources.get("limits", {}):
                yield f"{pod.name}, {container['name']}: has no memory limit"


CHECKS = (
    pods_are_restricted,
    roots_are_read_only,
    tokens_are_mounted_where_needed,
    images_say_what_they_are,
    containers_ask_for_resources,
)
