"""`headrace cluster drain`: a node is emptied of headrace's pods as budgets and grace periods allow."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import typer

from services.cli.cluster import facts, metrics
from services.cli.cluster.facts import Object
from services.cli.cluster.kube import OURS, PART_OF, Kube, KubeError, Outage
from services.cli.exits import FAILED, REFUSED, stop

STEP = 2.0  # seconds between two looks
DRY = {"dryRun": "All"}
# Gateways first, for their successors start fastest; the store last, for all others write to it while they drain.
ORDER = ("gateway", "engine", "store")
# What still runs in a pod, by the metric that its component shows.
TURNS = ("headrace_turns_in_flight", "ray_headrace_replica_running")


@dataclass(slots=True)
class Drain:
    """`pause` and `clock` are the wait between two looks and the time in seconds."""

    kube: Kube
    node: str
    patience: float
    pause: Callable[[], None] = lambda: time.sleep(STEP)
    clock: Callable[[], float] = time.monotonic
    _said: set[str] = field(default_factory=set)
    _outage: Outage = field(default_factory=Outage)

    def run(self) -> list[Object]:
        """Cordons, evicts, waits. Returns what is left on the node when patience ran out, or nothing. An API server
        that is away is looked for again; raises KubeError if it still is when patience runs out."""
        cordon(self.kube, self.node, {})
        self._say(f"{self.node} takes no new pods")
        until = self.clock() + self.patience
        while True:
            last = self.clock() >= until
            try:
                if not self._look():
                    return []
                if last:
                    return ours(self.kube, self.node)
            except KubeError as error:
                self._outage.note(error)
                if last:
                    raise
            self.pause()

    def _look(self) -> bool:
        """Moves those whose turn it is; those after them stay until these have gone. False if nobody is left."""
        left = ours(self.kube, self.node)
        self._outage.over()
        for pod in left:
            if _rank(pod) == _rank(left[0]):
                self._move(pod)
        return bool(left)

    def _move(self, pod: Object) -> None:
        name = facts.name(pod)
        if facts.ending(pod):
            self._say(f"{name} ends: {_turns(self.kube, pod)}")
            return
        held = evict(self.kube, pod, {})
        self._say(f"{name} waits: {held}" if held else f"{name} is evicted")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            print(line, flush=True)


def run(kube: Kube, node: str, patience: float, *, dry_run: bool) -> None:
    _known(kube, node)
    if dry_run:
        _rehearse(kube, node)
        return
    left = Drain(kube, node, patience).run()
    if said := _rest(node, left, _others(kube, node)):
        print(said)
    for pod in left:
        print(f"left: {facts.name(pod)} ({facts.state(pod)})")
    raise typer.Exit(FAILED if left else 0)


def _rest(node: str, left: list[Object], others: int | None) -> str:
    """What is to be known of the node beside what is left of ours."""
    if others is None:
        return f"{node}: whether pods of others are there could not be read; `kubectl drain` moves those"
    if others:
        return f"{node}: {others} pods of others stay; `kubectl drain` moves those"
    return "" if left else f"{node} is empty of pods"


def _known(kube: Kube, node: str) -> None:
    try:
        kube.get(kube.path("nodes", node))
    except KubeError as error:
        if error.status != 404:
            raise
        stop(f"there is no node {node}", "`kubectl get nodes` lists them.", code=REFUSED)


def _rehearse(kube: Kube, node: str) -> None:
    """The API server judges each step and does none."""
    cordon(kube, node, DRY)
    print(f"{node} would take no new pods")
    pods = ours(kube, node)
    for pod in pods:
        held = evict(kube, pod, DRY)
        print(
            f"{facts.name(pod)} would wait: {held}"
            if held
            else f"{facts.name(pod)} would be evicted{_means(pod)}"
        )
    if not pods:
        print(f"nothing of headrace in {kube.namespace} runs there")


def _means(pod: Object) -> str:
    if facts.labels(pod).get(facts.NODE_TYPE) == "head":
        return ": a Ray head, whose replicas go on if gcsFaultToleranceOptions are set, and end if not"
    return f", with {gpus} GPUs to be found elsewhere" if (gpus := facts.gpus(pod)) else ""


def cordon(kube: Kube, node: str, query: dict[str, str]) -> None:
    kube.send("PATCH", kube.path("nodes", node), {"spec": {"unschedulable": True}}, query)


def ours(kube: Kube, node: str) -> list[Object]:
    pods = kube.every("pods", OURS, f"spec.nodeName={node}")
    return sorted(filter(_runs, pods), key=lambda pod: (_rank(pod), facts.name(pod)))


def _runs(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _rank(pod: Object) -> tuple[int, bool]:
    """A head after its workers, for their replicas end their turns by it."""
    component = facts.labels(pod).get(facts.COMPONENT, "")
    place = ORDER.index(component) if component in ORDER else 0
    return place, facts.labels(pod).get(facts.NODE_TYPE) == "head"


def evict(kube: Kube, pod: Object, query: dict[str, str]) -> str:
    """Asks for the eviction; returns why it is held back, or "". A pod that has gone meanwhile is as good."""
    name = facts.name(pod)
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": kube.namespace},
    }
    options = {"deleteOptions": {"dryRun": ["All"]}} if query else {}
    try:
        kube.send("POST", kube.path("pods", name, "eviction"), body | options, query)
    except KubeError as error:
        if error.status == 429:
            return "its disruption budget lets none go until another is ready"
        if error.status == 500:
            return error.message  # so the server refuses a pod that has two budgets
        if error.status != 404:
            raise
    return ""


def _turns(kube: Kube, pod: Object) -> str:
    try:
        found = metrics.parse(metrics.page(kube, pod))
    except KubeError:
        return "its turns move"
    left = sum(each.value for each in found if each.name in TURNS)
    return f"{left:.0f} turns are still there" if found else "its turns move"


def _others(kube: Kube, node: str) -> int | None:
    """How many pods there are not this release's, or None if that cannot be read."""
    try:
        found = kube.every("pods", fields=f"spec.nodeName={node}", everywhere=True)
    except KubeError as error:
        if error.status != 403 and not error.passes:
            raise
        return None
    return sum(1 for pod in filter(_runs, found) if not _is_ours(kube, pod))


def _is_ours(kube: Kube, pod: Object) -> bool:
    here = pod["metadata"].get("namespace") == kube.namespace
    return here and facts.labels(pod).get(PART_OF) == "headrace"
