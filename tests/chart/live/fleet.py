"""A release as the chart makes it, in miniature: gateways, a store, a model on two GPU workers, what is around."""

import base64
from dataclasses import dataclass, field
from typing import Any

from tests.chart.apiserver.server import ApiServer

NAMESPACE = "inference"
MODEL = "gpt-oss-120b"
SERVICE = "headrace-gpt-oss-120b"
Object = dict[str, Any]
SECRETS = {
    "link-token": "bG9uZy1lbm91Z2gtbGluay10b2tlbg",
    "redis-url": "redis://gateway:p%40ss-w0rd-of-redis@valkey.example:6379/0",
    "key-pepper": "a pepper\nof two long lines of text",
    "plain": "ordinary-word-7",
}


def labels(component: str) -> dict[str, str]:
    named = {"app.kubernetes.io/part-of": "headrace", "app.kubernetes.io/instance": "headrace"}
    model = {"headrace.dev/model": MODEL} if component == "engine" else {}
    return {**named, "app.kubernetes.io/component": component, **model}


def meta(name: str, component: str = "gateway", **more: Any) -> Object:
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": labels(component), **more}}


def pod_template(component: str, image: str, gpus: int = 0) -> Object:
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    container = {
        "name": component,
        "image": image,
        "ports": [{"name": "metrics", "containerPort": 9464 if component == "gateway" else 8080}],
        "resources": {"limits": limits},
        "env": [
            {"name": "HEADRACE_SOME_TOKEN", "value": "plain-text-credential"},
            {"name": "HEADRACE_LOG_LEVEL", "value": "info"},
        ],
    }
    return {"metadata": {"labels": labels(component)}, "spec": {"containers": [container]}}


@dataclass(slots=True)
class Fleet:
    """`api` with the release in it. Worker pods go to GPU nodes while these have room, others to cpu-1."""

    api: ApiServer
    gpu_nodes: dict[str, int] = field(default_factory=lambda: {"gpu-1": 4, "gpu-2": 4})

    def install(self) -> None:
        self.api.alive.schedule = self.place
        self.api.store.create("Namespace", {"metadata": {"name": NAMESPACE}})
        for name, gpus in {"cpu-1": 0, **self.gpu_nodes}.items():
            status = {"allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {}}
            self.api.store.create("Node", {"metadata": {"name": name}, "status": status})
        self._secrets()
        self._workloads()
        self._around()

    def _secrets(self) -> None:
        data = {name: base64.b64encode(value.encode()).decode() for name, value in SECRETS.items()}
        self.api.store.create("Secret", meta("headrace") | {"data": data, "type": "Opaque"})

    def _workloads(self) -> None:
        create = self.api.store.create
        for component, kind in (("gateway", "Deployment"), ("store", "StatefulSet")):
            spec = {
                "replicas": 2 if component == "gateway" else 1,
                "selector": {"matchLabels": labels(component)},
                "template": pod_template(component, f"registry.example/{component}:1"),
            }
            create(kind, meta(f"headrace-{component}", component) | {"spec": spec})
        create("RayService", meta(SERVICE, "engine") | {"spec": self.ray_spec("registry.example/engine:1")})

    def ray_spec(self, image: str) -> Object:
        worker = {"groupName": "gpu", "replicas": 2, "minReplicas": 1, "maxReplicas": 4}
        return {
            "rayClusterDeletionDelaySeconds": 900,
            "rayClusterConfig": {
                "headGroupSpec": {"template": pod_template("engine", image)},
                "workerGroupSpecs": [worker | {"template": pod_template("engine", image, gpus=2)}],
            },
        }

    def _around(self) -> None:
        create = self.api.store.create
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "headrace-gateway"}
        bounds = {"minReplicas": 2, "maxReplicas": 8, "scaleTargetRef": target}
        create("HorizontalPodAutoscaler", meta("headrace-gateway") | {"spec": bounds})
        for component, bound in (("gateway", {"maxUnavailable": 1}), ("engine", {"minAvailable": 1})):
            spec = bound | {"selector": {"matchLabels": labels(component)}}
            create("PodDisruptionBudget", meta(f"headrace-{component}", component) | {"spec": spec})
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "notAfter": "2099-01-01T00:00:00Z"}
        create(
            "Certificate", meta("headrace-tls") | {"spec": {"secretName": "headrace-tls"}, "status": ready}
        )
        toml = 'max_turns = 64\nredis_password = "in-a-file-by-mistake"\n'
        create("ConfigMap", meta("headrace-gateway") | {"data": {"gateway.toml": toml}})

    def place(self, pod: Object) -> str:
        """The scheduler: GPU pods fit as long as their node has GPUs that are not taken and is not cordoned."""
        wanted = _gpus(pod)
        if not wanted:
            return "cpu-1"
        pods = self.api.store.every("Pod")
        for node, has in self.gpu_nodes.items():
            taken = sum(_gpus(each) for each in pods if each["spec"].get("nodeName") == node)
            cordoned = self.api.store.get("Node", "", node).get("spec", {}).get("unschedulable")
            if not cordoned and has - taken >= wanted:
                return node
        return ""

    def pods(self, component: str) -> list[Object]:
        found = self.api.store.every("Pod", NAMESPACE)
        return [
            each for each in found if each["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]

    def container(self, pod: Object, **status: Any) -> None:
        """Overwrites the state of a pod's one container."""
        states = [pod["status"]["containerStatuses"][0] | status]
        good = bool(states[0].get("ready", True))
        conditions = [
            c | ({"status": str(good)} if c["type"] == "Ready" else {}) for c in pod["status"]["conditions"]
        ]
        self.api.alive.status(pod, {"containerStatuses": states, "conditions": conditions})

    def upgrade(self, image: str) -> None:
        """What `helm upgrade` with another engine image does to the RayService."""
        item = self.api.store.get("RayService", NAMESPACE, SERVICE)
        self.api.store.replace("RayService", item | {"spec": self.ray_spec(image)}, "helm")


def _gpus(pod: Object) -> int:
    return int(pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
