"""Metrics of pods, fetched by the API server's proxy, so that nobody needs a way into the cluster's network."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from services.cli.cluster import facts
from services.cli.cluster.facts import Object
from services.cli.cluster.kube import Kube, KubeError

DENIED = (
    "metrics of pods, and the scaling decisions in them: not shown, for this user may not `get pods/proxy`; "
    "`headrace status --endpoint` asks the gateways"
)
PORT = "metrics"  # name of the container port, in gateways and in Ray's pods


@dataclass(frozen=True, slots=True)
class Reading:
    name: str
    labels: dict[str, str]
    value: float


def page(kube: Kube, pod: Object) -> str:
    """What the pod's metrics port says, or "" if it has none. Raises KubeError."""
    port = facts.port(pod, PORT)
    if port is None:
        return ""
    return kube.text(kube.path("pods", f"{facts.name(pod)}:{port}", "proxy/metrics"))


def parse(text: str) -> list[Reading]:
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        return []
    return [Reading(s.name, dict(s.labels), s.value) for each in families for s in each.samples]


def readings(kube: Kube, pods: list[Object], notes: list[str]) -> dict[str, list[Reading]]:
    """Readings by the pod's name. A pod that does not answer leaves a note; so does a user who may not ask."""
    found: dict[str, list[Reading]] = {}
    for pod in pods:
        try:
            found[facts.name(pod)] = parse(page(kube, pod))
        except KubeError as error:
            if error.status == 403:
                notes.append(DENIED)
                return found
            notes.append(f"metrics of {facts.name(pod)}: no answer")
    return found
