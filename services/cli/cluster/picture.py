"""Everything of a release that the API server shows, read once."""

from dataclasses import dataclass, field

from services.cli.cluster import facts, metrics
from services.cli.cluster.facts import Object
from services.cli.cluster.kube import OURS, Kube, KubeError
from services.cli.cluster.metrics import Reading
from services.cli.exits import UNREACHABLE, stop

CLUSTERS = "rayclusters"
PARTS = (
    "deployments",
    "statefulsets",
    "rayservices",
    CLUSTERS,
    "pods",
    "horizontalpodautoscalers",
    "scaledobjects",
    "poddisruptionbudgets",
    "certificates",
)
NEEDED = ("pods", "rayservices", "deployments")  # without these there is nothing to show


@dataclass(slots=True)
class Picture:
    """Objects by plural; `notes` say what could not be read and why."""

    namespace: str
    objects: dict[str, list[Object]]
    nodes: list[Object] = field(default_factory=list)
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, plural: str) -> list[Object]:
        return self.objects[plural]

    def pods_of(self, cluster: str) -> list[Object]:
        return [pod for pod in self["pods"] if facts.labels(pod).get(facts.CLUSTER) == cluster]

    def component(self, component: str) -> list[Object]:
        return [pod for pod in self["pods"] if facts.labels(pod).get(facts.COMPONENT) == component]


def take(kube: Kube, release: str | None, *, deep: bool = True) -> Picture:
    """With `deep`, nodes and metrics too. Raises CliError if nothing of headrace is there."""
    selector = OURS + (f",{facts.INSTANCE}={release}" if release else "")
    notes: list[str] = []
    # KubeRay copies a RayService's labels to its clusters only in part, so these are found by owner.
    found = {plural: _read(kube, plural, selector if plural != CLUSTERS else "", notes) for plural in PARTS}
    services = {facts.name(each) for each in found["rayservices"]}
    found[CLUSTERS] = [each for each in found[CLUSTERS] if _owner(each) in services]
    picture = Picture(kube.namespace, found, notes=notes)
    if not any(found[plural] for plural in NEEDED):
        _absent(kube, release)
    if deep:
        picture.nodes = _nodes(kube, notes)
        asked = [pod for pod in picture["pods"] if facts.ready(pod) and _tells(pod)]
        picture.readings = metrics.readings(kube, asked, notes)
    return picture


def _read(kube: Kube, plural: str, selector: str, notes: list[str]) -> list[Object]:
    try:
        return kube.every(plural, selector)
    except KubeError as error:
        if error.status == 404 and plural not in NEEDED:
            return []  # the operator of this kind is not installed, so nothing is of this kind
        if error.status == 403 and plural not in NEEDED:
            notes.append(f"{plural}: not shown, for this user may not list them")
            return []
        if error.status == 404:
            return []
        raise


def _owner(cluster: Object) -> str:
    owners = cluster["metadata"].get("ownerReferences") or ()
    return next((str(each["name"]) for each in owners if each["kind"] == "RayService"), "")


def _nodes(kube: Kube, notes: list[str]) -> list[Object]:
    try:
        return kube.every("nodes")
    except KubeError as error:
        if error.status != 403:
            raise
        notes.append("GPUs by node: not shown, for this user may not list nodes")
        return []


def _tells(pod: Object) -> bool:
    """Gateways and Ray's heads: the Serve controller, which decides about replicas, reports there."""
    labels = facts.labels(pod)
    return labels.get(facts.COMPONENT) == "gateway" or labels.get(facts.NODE_TYPE) == "head"


def _absent(kube: Kube, release: str | None) -> None:
    what = f"release {release}" if release else "nothing of headrace"
    do = f"Name the namespace with -n; headrace is in {_elsewhere(kube)}."
    stop(f"{what} is not in namespace {kube.namespace}" if release else f"{what} is in namespace {kube.namespace}",
         do, code=UNREACHABLE)  # fmt: skip


def _elsewhere(kube: Kube) -> str:
    try:
        pods = kube.every("pods", OURS, everywhere=True)
    except KubeError:
        return "the namespace that it was installed into"
    places = sorted({str(pod["metadata"]["namespace"]) for pod in pods})
    return ", ".join(places) or "no namespace: `helm install` puts it there"
