"""What an operator reads out of objects: why a pod does not run, and what it asks for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
MODEL = "headrace.dev/model"
COMPONENT = "app.kubernetes.io/component"
INSTANCE = "app.kubernetes.io/instance"
CLUSTER = "ray.io/cluster"
NODE_TYPE = "ray.io/node-type"
SENTENCE = 240  # characters of somebody else's message
ADVICE = {
    "Unschedulable": "add nodes or free GPUs; of an upgrade: UPGRADE.md, Without GPUs for two clusters",
    "ImagePullBackOff": "check the image's name, its tag and imagePullSecrets",
    "ErrImagePull": "check the image's name, its tag and imagePullSecrets",
    "InvalidImageName": "check the image's name",
    "CreateContainerConfigError": "a Secret or ConfigMap that it names is missing",
    "OOMKilled": "raise its memory limit; shared memory counts into it",
    "CrashLoopBackOff": "`kubectl logs --previous` has its last words",
    "Evicted": "its node was short of memory or disk",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not do its work: a reason as Kubernetes names it, and one line."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        said = f"{self.reason}: {self.detail}" if self.detail else self.reason
        return f"{said} ({advice})" if (advice := ADVICE.get(self.reason)) else said


def name(item: Object) -> str:
    return str(item["metadata"]["name"])


def labels(item: Object) -> dict[str, str]:
    return dict(item["metadata"].get("labels") or {})


def slug(model: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def condition(item: Object, type_: str) -> Object:
    found = item.get("status", {}).get("conditions") or ()
    return next((each for each in found if each["type"] == type_), {})


def holds(item: Object, type_: str) -> bool:
    return condition(item, type_).get("status") == "True"


def ready(pod: Object) -> bool:
    return holds(pod, "Ready") and not ending(pod)


def ending(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def state(pod: Object) -> str:
    """Ending, Ready, or the phase."""
    if ending(pod):
        return "Ending"
    return "Ready" if ready(pod) else str(pod.get("status", {}).get("phase", "Unknown"))


def restarts(pod: Object) -> int:
    return sum(each.get("restartCount", 0) for each in _statuses(pod))


def trouble(pod: Object) -> Trouble | None:
    """The first thing that keeps a pod from its work, or that killed it lately; None if it is well."""
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Trouble("Evicted", _short(status.get("message", "")))
    placed = condition(pod, "PodScheduled")
    if placed.get("status") == "False":
        return Trouble(placed.get("reason", "Unschedulable"), _short(placed.get("message", "")))
    return next((found for each in _statuses(pod) if (found := _container_trouble(each))), None)


def _container_trouble(status: Object) -> Trouble | None:
    waiting = status.get("state", {}).get("waiting") or {}
    last = status.get("lastState", {}).get("terminated") or {}
    now = status.get("state", {}).get("terminated") or {}
    for ended in (now, last):
        if ended.get("reason") == "OOMKilled":
            return Trouble(
                "OOMKilled", f"container {status['name']}, {status.get('restartCount', 0)} restarts"
            )
    reason = waiting.get("reason", "")
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return Trouble(reason, _short(f"container {status['name']}: {waiting.get('message', '')}"))
    if now.get("exitCode"):
        return Trouble(now.get("reason", "Error"), f"container {status['name']} ended with {now['exitCode']}")
    return None


def _statuses(pod: Object) -> Iterator[Object]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SENTENCE else f"{line[:SENTENCE]}..."


def gpus(pod: Object) -> int:
    """GPUs that a pod asks for, of any vendor."""
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    limits = (each.get("resources", {}).get("limits") or {} for each in pod["spec"]["containers"])
    return sum(_gpus_of(each) for each in limits)


def allocatable(node: Object) -> int:
    return _gpus_of(node.get("status", {}).get("allocatable") or {})


def _gpus_of(amounts: dict[str, Any]) -> int:
    return sum(int(amount) for resource, amount in amounts.items() if resource.endswith("/gpu"))


def port(pod: Object, named: str) -> int | None:
    found = (each for c in pod["spec"]["containers"] for each in c.get("ports") or ())
    return next((int(each["containerPort"]) for each in found if each.get("name") == named), None)
