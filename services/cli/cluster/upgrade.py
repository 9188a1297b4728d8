"""`headrace cluster upgrade`: the helm command for it, and a narrator of what KubeRay then does."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import typer

from services.cli.cluster import facts, metrics
from services.cli.cluster.facts import Object
from services.cli.cluster.kube import Kube, KubeError, Outage
from services.cli.cluster.picture import Picture, take
from services.cli.exits import FAILED, REFUSED, USAGE, stop

STEP = 2.0  # seconds between two looks
LINK = "headrace_link_up"
ORIGIN = "ray.io/originated-from-cr-name"  # KubeRay's label of what belongs to a RayService
BY_HAND = "Without GPUs for two clusters"
DELETION_DELAY = 60  # seconds; KubeRay's own, where the RayService names none


@dataclass(frozen=True, slots=True)
class Wish:
    model: str
    revision: str | None
    image: str | None
    chart: str
    watch: bool
    patience: float


def run(kube: Kube, release: str | None, wish: Wish) -> None:
    if not (wish.revision or wish.image or wish.watch):
        stop("nothing to do", "Give --revision, --image or --watch.", code=USAGE)
    picture = take(kube, release, deep=True)
    service = find(picture, wish.model)
    if wish.revision or wish.image:
        print("\n".join(command(kube, service, wish)))
        for line in forecast(picture, service, wish):
            print(f"# {line}")
    if wish.watch:
        done = Follow(kube, release, facts.name(service), wish.patience).run()
        raise typer.Exit(0 if done else FAILED)


def find(picture: Picture, model: str) -> Object:
    """By the model's name, however it is spelled, or the RayService's: the chart refuses models that differ in
    spelling only."""
    slug = facts.slug(model)
    there = picture["rayservices"]
    found = [each for each in there if facts.slug(key(each)) == slug]
    found = found or [each for each in there if facts.name(each) == model]
    if not found:
        known = ", ".join(sorted({key(each) for each in there})) or "none"
        stop(f"no model {model} is in {picture.namespace}", f"There: {known}.", code=REFUSED)
    if len(found) > 1:
        releases = sorted({facts.labels(each).get(facts.INSTANCE, "") for each in found})
        do = f"Give --release: {' or '.join(releases)}."
        stop(f"several releases in {picture.namespace} have the model {model}", do, code=USAGE)
    return found[0]


def key(service: Object) -> str:
    """The model's key under `models` of the chart's values: its label has it as it is written there."""
    return facts.labels(service).get(facts.MODEL, facts.name(service))


def command(kube: Kube, service: Object, wish: Wish) -> list[str]:
    """A release is helm's: whatever else changed its objects would be undone by the next upgrade."""
    release = facts.labels(service).get(facts.INSTANCE, "RELEASE")
    changes = _changes(service, wish)
    words = [
        "helm",
        "upgrade",
        release,
        wish.chart,
        "--namespace",
        kube.namespace,
        "--reset-then-reuse-values",
    ]
    for path, value in changes:
        at = ".".join(step.replace(".", "\\.") for step in path)
        words += ["--set-string", f"{at}={value}"]
    lines = [
        f"# put this into your values file too, or the next upgrade by it goes back: {_as_values(changes)}"
    ]
    return [shlex.join([*words, "--wait", "--timeout", "60m"]), *lines]


def _changes(service: Object, wish: Wish) -> list[tuple[tuple[str, ...], str]]:
    """Paths in the chart's values, and what they are to be."""
    changes: list[tuple[tuple[str, ...], str]] = []
    if wish.revision:
        changes.append((("models", key(service), "checkpoint", "revision"), wish.revision))
    if wish.image:
        changes.append((("images", "engine", "tag"), wish.image))
    return changes


def _as_values(changes: list[tuple[tuple[str, ...], str]]) -> str:
    """In one line of YAML, as JSON is: names with dots and numbers as text stay what they are."""
    values: dict[str, Any] = {}
    for path, value in changes:
        inner: Any = value
        for step in reversed(path[1:]):
            inner = {step: inner}
        values[path[0]] = inner
    return json.dumps(values)


def forecast(picture: Picture, service: Object, wish: Wish) -> list[str]:
    """What the upgrade will need, before it is begun."""
    moved = picture["rayservices"] if wish.image else [service]
    by_hand = [each for each in moved if each["spec"].get("upgradeStrategy", {}).get("type") == "None"]
    lines = [
        f"{key(each)} has upgrade.strategy None: it stays as it is until you do this" for each in by_hand
    ]
    lines += _deletions(picture, by_hand)
    second = [each for each in moved if each not in by_hand]
    if len(second) > 1:
        lines.append(f"the engine's image is every model's: {len(second)} RayServices get a second cluster")
    return lines + _room(picture, second)


def _room(picture: Picture, moved: list[Object]) -> list[str]:
    """Whether there are GPUs for a second cluster of each."""
    need = sum(facts.gpus(pod) for each in moved for pod in picture.pods_of(_cluster(each, "active")))
    if not (need and picture.nodes):
        return []
    has = sum(facts.allocatable(node) for node in picture.nodes)
    free = max(has - sum(map(facts.gpus, picture["pods"])), 0)
    lines = [f"while both clusters stand, {need} GPUs more are needed; at most {free} of {has} are free"]
    if free < need:
        lines += [
            "too few: add nodes, or do it by hand in a quiet hour, one model at a time:",
            *(
                f"  give the upgrade models.{key(each)}.upgrade.strategy=None: it changes nothing yet"
                for each in moved
            ),
            *_deletions(picture, moved),
        ]
    return lines


def _deletions(picture: Picture, services: list[Object]) -> list[str]:
    if not services:
        return []
    select = f"kubectl delete raycluster -n {picture.namespace} -l {ORIGIN}"
    return [
        *(f"  after the upgrade: {select}={facts.name(each)}" for each in services),
        f'  what that does to running turns: "{BY_HAND}" in helm/headrace/UPGRADE.md',
    ]


def _cluster(service: Object, role: str) -> str:
    part = (service.get("status") or {}).get(f"{role}ServiceStatus") or {}
    return str(part.get("rayClusterName") or "")


@dataclass(slots=True)
class Follow:
    """Looks again and again, and says what is new. `pause` and `clock` as for a drain."""

    kube: Kube
    release: str | None
    service: str
    patience: float
    pause: Callable[[], None] = lambda: time.sleep(STEP)
    clock: Callable[[], float] = time.monotonic
    _said: list[str] = field(default_factory=list)
    _first: str | None = None  # the cluster that served at the first look
    _begun: bool = False
    _was_pending: bool = False
    _outage: Outage = field(default_factory=Outage)

    def run(self) -> bool:
        """True once the upgrade is over and the old cluster has gone, False when it was taken back or patience ran
        out before. Raises KubeError if the API server is away when patience runs out."""
        until = self.clock() + self.patience
        while True:
            last = self.clock() >= until
            try:
                if (done := self._ask()) is not None:
                    return done
            except KubeError as error:
                self._outage.note(error)
                if last:
                    raise
            if last:
                print(f"not done after {self.patience:g} s; the upgrade itself goes on", flush=True)
                return False
            self.pause()

    def _ask(self) -> bool | None:
        picture = take(self.kube, self.release, deep=False)
        self._outage.over()
        service = next((s for s in picture["rayservices"] if facts.name(s) == self.service), None)
        if service is None:
            stop(f"the RayService {self.service} has been removed", code=FAILED)
        return self._look(picture, service)

    def _look(self, picture: Picture, service: Object) -> bool | None:
        """Whether it went well, or None while it goes on."""
        active, pending = _cluster(service, "active"), _cluster(service, "pending")
        self._first = active if self._first is None else self._first
        self._was_pending = self._was_pending or bool(pending)
        clusters = [c for c in map(facts.name, picture["rayclusters"]) if _is_of(picture, c, service)]
        self._begun = self._begun or bool(pending) or len(clusters) > 1 or active != self._first
        if not self._begun:
            self._say([f"{active or self.service} serves, and no upgrade is under way: waiting for one"])
            return None
        if pending:
            self._say(_pending(picture, service, active, pending) + _links(self.kube, picture, service))
            return None
        if self._was_pending and active == self._first:
            self._say([f"taken back: {active or 'no cluster'} serves as before, and no other comes up"])
            return False
        old = [each for each in clusters if each != active]
        self._say(_switched(service, active, old) + (_links(self.kube, picture, service) if old else []))
        return None if old else True

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._said:
                print(line, flush=True)
        self._said = lines


def _is_of(picture: Picture, cluster: str, service: Object) -> bool:
    owner = next(each for each in picture["rayclusters"] if facts.name(each) == cluster)["metadata"][
        "ownerReferences"
    ]
    return any(each["name"] == facts.name(service) for each in owner)


def _pending(picture: Picture, service: Object, active: str, pending: str) -> list[str]:
    pods = picture.pods_of(pending)
    lines = [
        f"{pending} comes up beside {active}: {sum(map(facts.ready, pods))} of {len(pods)} pods are ready"
    ]
    for pod in pods:
        if found := facts.trouble(pod):
            lines.append(f"blocked: {facts.name(pod)}: {found}")
    return lines + _loading(service)


def _loading(service: Object) -> list[str]:
    """What Serve says of the applications of the pending cluster, as KubeRay copies it."""
    part = service["status"].get("pendingServiceStatus") or {}
    lines = []
    for name, application in (part.get("applicationStatuses") or {}).items():
        for deployment, state in (application.get("serveDeploymentStatuses") or {}).items():
            said = f": {message}" if (message := state.get("message")) else ""
            lines.append(f"{name}/{deployment} is {state.get('status', 'unknown')}{said}")
    return lines


def _links(kube: Kube, picture: Picture, service: Object) -> list[str]:
    """Where turns can go: each gateway is linked to every replica with a lease, so one gateway is asked."""
    gateway = next((pod for pod in picture.component("gateway") if facts.ready(pod)), None)
    if gateway is None:
        return ["no gateway is ready"]
    found = metrics.readings(kube, [gateway], []).get(facts.name(gateway), [])
    model = facts.slug(facts.labels(service).get(facts.MODEL, ""))
    up = {
        each.labels["replica"]
        for each in found
        if each.name == LINK and each.value and facts.slug(each.labels["model"]) == model
    }
    return [f"turns can go to {len(up)} replicas with a lease"] if up else []


def _switched(service: Object, active: str, old: list[str]) -> list[str]:
    if not old:
        return [f"done: {active} serves alone"]
    delay = service["spec"].get("rayClusterDeletionDelaySeconds", DELETION_DELAY)
    return [
        f"{active} serves: gateways send new turns to its replicas, by their leases",
        *(f"{each} finishes its turns; KubeRay deletes it {delay} s after the switch" for each in old),
    ]
