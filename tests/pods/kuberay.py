"""What KubeRay 1.7 makes of a RayCluster's templates, as far as a container sees it: the command of Ray, its
environment, and the application put to Serve. Restated from its source (controllers/ray/common/pod.go)."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

GCS_PORT, AGENT_PORT, DASHBOARD_PORT, METRICS_PORT = 6379, 52365, 8265, 8080


@dataclass(frozen=True, slots=True)
class RayPod:
    """One pod of a RayCluster. `spec` is the template's; `labels` are those that it gets."""

    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    argv: tuple[str, ...]
    env: Mapping[str, str]


def head(service: Mapping[str, Any], head_address: str) -> RayPod:
    cluster = service["spec"]["rayClusterConfig"]
    group = cluster["headGroupSpec"]
    params = {
        "dashboard-host": "0.0.0.0",
        "metrics-export-port": str(METRICS_PORT),
        **group.get("rayStartParams", {}),
        "block": "true",
        "dashboard-agent-listen-port": str(AGENT_PORT),
    }
    if cluster.get("enableInTreeAutoscaling"):
        params["no-monitor"] = "true"
    if redis_password(service):
        params["redis-password"] = "$REDIS_PASSWORD"
    labels = _labels(service, group, "head") | {"ray.io/serve": "false"}
    return _pod("head", group, labels, f"ray start --head {_options(params)}", cluster, head_address)


def worker(service: Mapping[str, Any], group: Mapping[str, Any], head_address: str) -> RayPod:
    params = {
        "address": f"{head_address}:{GCS_PORT}",
        "metrics-export-port": str(METRICS_PORT),
        **group.get("rayStartParams", {}),
        "block": "true",
        "dashboard-agent-listen-port": str(AGENT_PORT),
    }
    cluster = service["spec"]["rayClusterConfig"]
    labels = _labels(service, group, "worker") | {"ray.io/serve": "true"}
    name = f"worker-{group['groupName']}"
    return _pod(name, group, labels, f"ray start {_options(params)}", cluster, head_address)


def _labels(service: Mapping[str, Any], group: Mapping[str, Any], kind: str) -> dict[str, str]:
    own = group["template"].get("metadata", {}).get("labels", {})
    return {
        **own,
        "ray.io/node-type": kind,
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": f"{service['metadata']['name']}-abcde",
        "ray.io/originated-from-cr-name": service["metadata"]["name"],
    }


def _options(params: Mapping[str, str]) -> str:
    return " ".join(f"--{name}" if value == "true" else f"--{name}={value}" for name, value in params.items())


def _pod(
    name: str,
    group: Mapping[str, Any],
    labels: Mapping[str, str],
    start: str,
    cluster: Mapping[str, Any],
    head_address: str,
) -> RayPod:
    spec = group["template"]["spec"]
    own = spec["containers"][0]
    # A command of one's own comes before Ray's, joined by "&&".
    given = " ".join([*own.get("command", ()), *own.get("args", ())])
    script = f"ulimit -n 65536; {given + ' && ' if given else ''}{start}"
    env = {
        "RAY_CLUSTER_NAME": labels["ray.io/cluster"],
        "RAY_PORT": str(GCS_PORT),
        "RAY_ADDRESS": f"127.0.0.1:{GCS_PORT}" if name == "head" else f"{head_address}:{GCS_PORT}",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_TIMEOUT_MS_TASK_WAIT_FOR_DEATH_INFO": "0",
        "KUBERAY_GEN_RAY_START_CMD": start,
    }
    if name != "head":
        env |= {"FQ_RAY_IP": head_address, "RAY_IP": head_address}
    return RayPod(
        name, spec, labels, ("/bin/bash", "-c", "--", script), env | _fault_tolerance(cluster, name)
    )


def _fault_tolerance(cluster: Mapping[str, Any], name: str) -> dict[str, str]:
    """Without the password, which comes from a Secret (`redis_password`)."""
    options = cluster.get("gcsFaultToleranceOptions")
    if not options:
        return {}
    if name != "head":
        return {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
    return {
        "RAY_REDIS_ADDRESS": options["redisAddress"],
        "RAY_external_storage_namespace": "uid-of-the-cluster",
    }


def redis_password(service: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The secretKeyRef of the password that the head takes for its state."""
    options = service["spec"]["rayClusterConfig"].get("gcsFaultToleranceOptions") or {}
    reference = options.get("redisPassword", {}).get("valueFrom", {}).get("secretKeyRef")
    return dict(reference) if reference else None


def token_secret(service: Mapping[str, Any]) -> tuple[str, str]:
    """Name and key of the Secret with Ray's token."""
    options = service["spec"]["rayClusterConfig"]["authOptions"]
    assert options["mode"] == "token"
    return options["secretName"], "auth_token"


def deploy(service: Mapping[str, Any], dashboard: str, token: str) -> None:
    """Put the applications to Serve as the operator does. Raises HTTPError with Serve's words."""
    document = yaml.safe_load(service["spec"]["serveConfigV2"])
    _call("PUT", dashboard, token, document)


def applications(dashboard: str, token: str) -> dict[str, Any]:
    """Serve's word on each application."""
    return dict(_call("GET", dashboard, token)["applications"])


def _call(method: str, dashboard: str, token: str, document: object = None) -> dict[str, Any]:
    body = None if document is None else json.dumps(document).encode()
    headers = {"x-ray-authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"http://{dashboard}/api/serve/applications/", body, headers, method=method
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            text = reply.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code}: {error.read().decode(errors='replace')[:2000]}") from error
    return dict(json.loads(text)) if text else {}
