"""The pods of a rendered release on this machine: store, Ray's head and worker, gateway, and that of `helm test`."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis import Redis

from tests.chart.helm import NAMESPACE, Object, Question, objects
from tests.pods import kuberay
from tests.pods.manifests import Manifests, PodReader, hosts, hosts_text
from tests.pods.sandbox import Mount, Running, Sandbox
from tests.support import checkpoints
from tests.support.two_nodes import until
from tests.support.valkey import binary

PODS = ("store", "head", "worker", "gateway", "test")
MODEL, RELEASE = "tiny", "headrace"
START_S = 90.0


def rendered(*sets: str) -> list[Object]:
    return objects(Question((Path(__file__).with_name("values.yaml"),), sets))


@dataclass(slots=True)
class World:
    """`folder` has the claims and, per pod, volumes and logs."""

    folder: Path
    sandboxes: Mapping[str, Sandbox]
    manifests: Manifests
    readers: dict[str, PodReader] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, sandboxes: Mapping[str, Sandbox]) -> "World":
        claims = folder / "claims"
        claims.mkdir()
        checkpoints.write(claims / MODEL, checkpoints.QWEN_MARKS, checkpoints.QWEN)
        world = cls(folder, sandboxes, Manifests(rendered(), {"checkpoints": claims}))
        world._name()
        return world

    @property
    def service(self) -> dict[str, Any]:
        return self.manifests.one("RayService")

    @property
    def token(self) -> str:
        name, key = kuberay.token_secret(self.service)
        return self.manifests.secret(name)[key]

    @property
    def dashboard(self) -> str:
        return f"{self.sandboxes['head'].address}:{kuberay.DASHBOARD_PORT}"

    @property
    def head_name(self) -> str:
        """Of the Service that KubeRay makes for each cluster."""
        return f"{self.service['metadata']['name']}-abcde-head-svc"

    @property
    def head_address(self) -> str:
        return f"{self.head_name}.{NAMESPACE}.svc.cluster.local"

    def template(self, kind: str) -> dict[str, Any]:
        return dict(self.manifests.one(kind)["spec"]["template"])

    def ray(self) -> dict[str, kuberay.RayPod]:
        [group] = self.service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        return {
            "head": kuberay.head(self.service, self.head_address),
            "worker": kuberay.worker(self.service, group, self.head_address),
        }

    def _name(self) -> None:
        """Services by the labels of the pods, KubeRay's own, and each pod itself, as a kubelet writes it."""
        labels = {name: pod.labels for name, pod in self.ray().items()}
        for name, kind in (("store", "StatefulSet"), ("gateway", "Deployment")):
            labels[name] = self.template(kind)["metadata"]["labels"]
        names = hosts(
            self.manifests, {name: (each, self.sandboxes[name].address) for name, each in labels.items()}
        )
        names[self.head_name] = names[f"{RELEASE}-{MODEL}-head-svc"] = self.sandboxes["head"].address
        own = "".join(f"{each.address} {each.name}\n" for each in self.sandboxes.values())
        self.sandboxes["store"].hosts.write_text(hosts_text(names, NAMESPACE) + own)

    def reader(self, name: str, spec: Mapping[str, Any]) -> PodReader:
        if name not in self.readers:
            self.readers[name] = PodReader(self.manifests, spec, self.sandboxes[name].folder, {})
        return self.readers[name]

    def store(self) -> Running:
        """Valkey's image has what this machine has in a package."""
        stateful = self.manifests.one("StatefulSet")["spec"]
        claimed = [
            {"name": each["metadata"]["name"], "emptyDir": {}} for each in stateful["volumeClaimTemplates"]
        ]
        spec = dict(stateful["template"]["spec"])
        spec["volumes"] = [*spec["volumes"], *claimed]
        image = self.folder / "valkey"
        image.mkdir()
        shutil.copy(binary(), image)
        container = self.reader("store", spec).container(spec["containers"][0])
        mounts = [*container.mounts, Mount(image, "/usr/local/sbin", read_only=True)]
        running = self.sandboxes["store"].start(replace(container, mounts=mounts))
        self.wait(running, lambda: "Ready to accept connections" in running.log.read_text())
        return running

    def store_password(self) -> str:
        """That Ray's head is told, too."""
        reference = kuberay.redis_password(self.service)
        assert reference is not None
        return self.manifests.secret(reference["name"])[reference["key"]]

    def redis(self) -> Redis:
        return Redis(self.sandboxes["store"].address, password=self.store_password())

    def ray_pod(self, name: str) -> Running:
        pod = self.ray()[name]
        env = {**pod.env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        if name == "head":
            env["REDIS_PASSWORD"] = self.store_password()
        container = self.reader(name, pod.spec).container(pod.spec["containers"][0], pod.argv, env)
        running = self.sandboxes[name].start(container)
        self.wait(running, lambda: "Ray runtime started" in running.log.read_text(errors="replace"))
        return running

    def serve(self, head: Running) -> None:
        """As the operator does, once the head's dashboard answers."""
        self.wait(head, lambda: self.status() is not None)
        kuberay.deploy(self.service, self.dashboard, self.token)
        self.wait(head, lambda: self.status() == "RUNNING")

    def upgrade(self, head: Running, *sets: str) -> dict[str, Any]:
        """As the operator does where the application is another; Serve's word on the deployment once it holds."""
        service = next(each for each in rendered(*sets) if each["kind"] == "RayService")
        kuberay.deploy(service, self.dashboard, self.token)
        (told,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
        self.wait(head, lambda: self.application()["deployed_app_config"] == told)
        self.wait(head, lambda: self.status() == "RUNNING")
        return self.deployment()

    def application(self) -> dict[str, Any]:
        """Serve's word on it; empty before there is one."""
        return dict(kuberay.applications(self.dashboard, self.token).get(MODEL, {}))

    def deployment(self) -> dict[str, Any]:
        return dict(self.application()["deployments"][MODEL])

    def status(self) -> str | None:
        """Serve's word on the application; None while nobody answers."""
        try:
            return str(self.application().get("status", ""))
        except (OSError, AssertionError):
            return None

    def gateway(self) -> Running:
        spec = self.template("Deployment")["spec"]
        reader, sandbox = self.reader("gateway", spec), self.sandboxes["gateway"]
        for each in spec.get("initContainers", ()):
            sandbox.run(reader.container(each))
        running = sandbox.start(reader.container(spec["containers"][0]))
        self.wait(running, lambda: self.probe("startupProbe"))
        return running

    def probe(self, name: str) -> bool:
        """One of the gateway's, as the kubelet asks."""
        probe = self.template("Deployment")["spec"]["containers"][0][name]
        with grpc.insecure_channel(f"{self.sandboxes['gateway'].address}:{probe['grpc']['port']}") as channel:
            question = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
            try:
                reply = health_pb2_grpc.HealthStub(channel).Check(question, timeout=probe["timeoutSeconds"])
            except grpc.RpcError:
                return False
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def inside(self, script: str) -> str:
        """What a shell says in a container like the gateway's. Raises Failed where it ends badly."""
        container = self.reader("gateway", self.template("Deployment")["spec"]).container(
            self.template("Deployment")["spec"]["containers"][0], ["sh", "-c", script]
        )
        return self.sandboxes["gateway"].run(replace(container, name="shell"))

    def helm_test(self) -> str:
        """All containers of `helm test`'s pod; what the last one printed. Raises Failed."""
        spec = self.manifests.one("Pod")["spec"]
        reader, said = self.reader("test", spec), ""
        for each in (*spec["initContainers"], *spec["containers"]):
            said = self.sandboxes["test"].run(reader.container(each))
        return said

    @property
    def endpoint(self) -> str:
        return f"{self.sandboxes['gateway'].address}:50051"

    def key(self) -> str:
        """The one that `helm test` made."""
        return (self.sandboxes["test"].folder / "volumes/keys/api-key").read_text().strip()

    def wait(self, running: Running, met: Callable[[], bool]) -> None:
        until(met, START_S, lambda: running.log.read_text(errors="replace")[-4000:], running.outer.poll)
