"""Every connection that Headrace needs is let through, and none that it does not."""

from collections.abc import Iterator

from tests.chart.manifests import Manifests, Pod
from tests.chart.network import End, allowed, elsewhere, end, outside

LINK, GRPC, METRICS, RAY_METRICS, STORE = 50061, 50051, 9464, 8080, 6379
OPERATOR = (8265, 8000, 52365)
DNS = elsewhere("kube-system", **{"k8s-app": "kube-dns"})
PROMETHEUS = elsewhere("monitoring")
KUBERAY = elsewhere("ray-system", **{"app.kubernetes.io/name": "kuberay-operator"})
CALLER = End({}, {"kubernetes.io/metadata.name": "app", "headrace.dev/client": "true"})
STRANGER = elsewhere("somewhere")
INTERNET, API_SERVER = outside("203.0.113.9"), outside("10.96.0.1")
# A store in this namespace, and one in another, where the cases' own rules look for it.
NEAR_STORE, FAR_STORE = End({"app": "valkey"}), elsewhere("data")


def guarded(m: Manifests) -> bool:
    return bool(m.of("NetworkPolicy"))


def parts(m: Manifests, component: str, role: str = "") -> list[Pod]:
    return [pod for pod in m.pods() if pod.component == component and role in ("", pod.role)]


def policies_cover_every_pod(m: Manifests) -> Iterator[str]:
    from tests.chart.network import _policies

    for pod in m.pods() if guarded(m) else ():
        for direction in ("Ingress", "Egress"):
            if not _policies(m, end(pod), direction):
                yield f"{pod.name}: no policy restricts its {direction.lower()}"


def policies_cover_something(m: Manifests) -> Iterator[str]:
    for item in m.of("NetworkPolicy"):
        labels = item["spec"]["podSelector"].get("matchLabels")
        if not m.selected(labels):
            yield f"NetworkPolicy {item['metadata']['name']}: selects no pod"


def needed_flows_are_open(m: Manifests) -> Iterator[str]:
    for what, source, target, port in _needed(m):
        if not allowed(m, source, target, port):
            yield f"{what}: port {port} is shut"
    for pod in m.pods():
        if pod.component != "store":
            yield from (
                f"{pod.name}: may not ask DNS by {how}"
                for how in ("UDP", "TCP")
                if not allowed(m, end(pod), DNS, 53, how)
            )


def _needed(m: Manifests) -> Iterator[tuple[str, End, End, int]]:
    gateways, tests = parts(m, "gateway"), parts(m, "test")
    for gateway in gateways:
        yield "callers to gateway", CALLER, end(gateway), GRPC
        yield "Prometheus to gateway", PROMETHEUS, end(gateway), METRICS
        yield from (("test to gateway", end(test), end(gateway), GRPC) for test in tests)
        yield from (
            ("gateway to replica", end(gateway), end(pod), LINK) for pod in parts(m, "engine", "worker")
        )
    for pod in parts(m, "engine"):
        yield "Prometheus to Ray", PROMETHEUS, end(pod), RAY_METRICS
        yield from (
            ("Ray to Ray", end(pod), end(other), 23456)
            for other in parts(m, "engine")
            if other.owner is pod.owner
        )
    for head in parts(m, "engine", "head"):
        yield from (("KubeRay to head", KUBERAY, end(head), port) for port in OPERATOR)
        if head.owner["spec"]["rayClusterConfig"].get("enableInTreeAutoscaling"):
            yield "Ray's autoscaler to the API server", end(head), API_SERVER, 443
    for pod in [*gateways, *parts(m, "engine")]:
        yield f"{pod.name} to the store", end(pod), store_of(m), STORE


def store_of(m: Manifests) -> End:
    """The chart's own store, or that of Ray's address: by a name without a dot it is in this namespace."""
    for pod in parts(m, "store"):
        return end(pod)
    clusters = [item["spec"]["rayClusterConfig"] for item in m.of("RayService")]
    addresses = [each.get("gcsFaultToleranceOptions", {}).get("redisAddress", "") for each in clusters]
    return NEAR_STORE if any(address and "." not in address for address in addresses) else FAR_STORE


def other_flows_are_shut(m: Manifests) -> Iterator[str]:
    for what, source, target, port in _unwanted(m) if guarded(m) else ():
        if allowed(m, source, target, port):
            yield f"{what}: port {port} is open"


def _unwanted(m: Manifests) -> Iterator[tuple[str, End, End, int]]:
    for pod in m.pods():
        for who, source in (("the internet", INTERNET), ("a stranger", STRANGER)):
            yield from (
                (f"{who} to {pod.name}", source, end(pod), port)
                for port in (LINK, GRPC, STORE, 8265, 10001, METRICS)
            )
        yield f"{pod.name} to the internet by http", end(pod), INTERNET, 80
    for pod in parts(m, "engine"):
        yield from (
            (f"{caller} to {pod.name}", CALLER, end(pod), port)
            for caller in ("a caller",)
            for port in (LINK, 8265)
        )
        yield from (
            (f"gateway to {pod.name}", end(gateway), end(pod), 8265) for gateway in parts(m, "gateway")
        )
        yield from (
            (f"{pod.name} to gateway", end(pod), end(gateway), GRPC) for gateway in parts(m, "gateway")
        )
        others = [other for other in parts(m, "engine") if other.owner is not pod.owner]
        yield from ((f"{pod.name} to another model", end(pod), end(other), 23456) for other in others)
    for worker in parts(m, "engine", "worker"):
        yield f"{worker.name} to the API server", end(worker), API_SERVER, 6443


def rules_name_peers(m: Manifests) -> Iterator[str]:
    """A rule without peers, or with every address, lets everybody in."""
    for item in m.of("NetworkPolicy"):
        name, spec = item["metadata"]["name"], item["spec"]
        for rule in spec.get("ingress") or ():
            blocks = [peer.get("ipBlock", {}).get("cidr", "") for peer in rule.get("from") or ()]
            if not rule.get("from") or any(block.endswith("/0") for block in blocks):
                yield f"NetworkPolicy {name}: an ingress rule lets everybody in"
        for rule in spec.get("egress") or ():
            if not rule.get("to"):
                yield f"NetworkPolicy {name}: an egress rule lets out to everywhere"


CHECKS = (
    policies_cover_every_pod,
    policies_cover_something,
    needed_flows_are_open,
    other_flows_are_shut,
    rules_name_peers,
)
