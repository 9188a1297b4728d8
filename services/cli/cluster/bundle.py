"""`headrace cluster bundle`: what somebody needs who was not there, in one file, with secrets masked."""

import io
import json
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import yaml

from services.cli.cluster import facts, metrics
from services.cli.cluster.facts import Object
from services.cli.cluster.known import known_in
from services.cli.cluster.kube import OURS, Kube, KubeError
from services.cli.cluster.mask import Mask, secret
from services.cli.cluster.picture import PARTS, Picture, take
from services.cli.cluster.status import read
from services.cli.exits import FAILED, stop

MORE = ("services", "configmaps", "jobs", "networkpolicies")
LINE_BYTES = 20_000_000  # of one log at most
NO_SECRETS = (
    "Secrets could not be read, so what looks like a credential is masked, and a bare value that does not is not: "
    "look through the logs before you send this"
)


@dataclass(slots=True)
class Bundle:
    kube: Kube
    picture: Picture
    mask: Mask
    notes: list[str] = field(default_factory=list)

    def files(self, now: datetime, lines: int) -> Iterator[tuple[str, str]]:
        """Paths with texts, unmasked. What cannot be read becomes a note, and notes come last."""
        yield "status.json", json.dumps(asdict(read(self.picture, now)), indent=2, default=str)
        yield "versions.json", json.dumps(self._versions(), indent=2)
        yield from self._objects()
        yield from self._settings()
        yield "events.txt", self._try("events", lambda: _events(self.kube.every("events")))
        for pod in self.picture["pods"]:
            yield from self._pod(pod, lines)
        yield "notes.txt", "\n".join([*self.picture.notes, *self.notes, ""])

    def _versions(self) -> Object:
        images = {c["image"] for pod in self.picture["pods"] for c in pod["spec"]["containers"]}
        server = json.loads(self._try("version", lambda: self.kube.text("/version")) or "{}")
        ours = {"headrace": metadata.version("headrace"), "kubernetes client": metadata.version("kubernetes")}
        return {"command": ours, "server": server.get("gitVersion", ""), "images": sorted(images)}

    def _objects(self) -> Iterator[tuple[str, str]]:
        found = {plural: self.picture[plural] for plural in PARTS} | {"nodes": self.picture.nodes}
        for plural in MORE:
            found[plural] = self._every(plural)
        for plural, items in found.items():
            if items:
                shown = [self.mask.item(each) for each in items]
                yield f"objects/{plural}.yaml", yaml.safe_dump_all(shown, sort_keys=False)

    def _settings(self) -> Iterator[tuple[str, str]]:
        """The files of ConfigMaps as pods see them: effective settings, tenants."""
        for item in self._every("configmaps"):
            for name, text in (item.get("data") or {}).items():
                yield f"settings/{facts.name(item)}/{name}", self.mask.document(text)

    def _pod(self, pod: Object, lines: int) -> Iterator[tuple[str, str]]:
        name = facts.name(pod)
        if facts.ready(pod) and (
            text := self._try(f"metrics of {name}", lambda: metrics.page(self.kube, pod))
        ):
            yield f"metrics/{name}.txt", text
        restarted = {c["name"] for c in _container_statuses(pod) if c.get("restartCount")}
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            path = f"pods/{name}/{container['name']}"
            yield f"{path}.log", self._log(name, container["name"], lines, previous=False)
            if container["name"] in restarted:
                yield f"{path}.previous.log", self._log(name, container["name"], lines, previous=True)

    def _log(self, pod: str, container: str, lines: int, *, previous: bool) -> str:
        query = {
            "container": container,
            "tailLines": str(lines),
            "limitBytes": str(LINE_BYTES),
            "timestamps": "true",
        }
        query |= {"previous": "true"} if previous else {}
        what = f"log of {pod}/{container}{' before its restart' if previous else ''}"
        return self._try(what, lambda: self.kube.text(self.kube.path("pods", pod, "log"), query))

    def _every(self, plural: str) -> list[Object]:
        try:
            return self.kube.every(plural, OURS)
        except KubeError as error:
            self._miss(plural, error)
            return []

    def _try(self, what: str, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except KubeError as error:
            self._miss(what, error)
            return ""

    def _miss(self, what: str, error: KubeError) -> None:
        note = f"{what}: {error.message}"
        if note not in self.notes:
            self.notes.append(note)


def run(kube: Kube, release: str | None, to: Path, lines: int) -> None:
    picture = take(kube, release)
    secrets, notes = _secrets(kube)
    bundle = Bundle(kube, picture, Mask(known_in(secrets, _public(picture))), notes)
    try:
        count = _write(bundle, secrets, to, lines)
    except OSError as error:
        stop(f"{to} cannot be written: {error.strerror}", "Name another file with --to.", code=FAILED)
    for note in [*picture.notes, *bundle.notes]:
        print(f"note: {note}", file=sys.stderr)
    print(f"{to}: {count} files. Secrets are masked; look at it before you send it.")


def _public(picture: Picture) -> frozenset[str]:
    """Names that an operator reads logs and objects by, so that a Secret that repeats one does not blacken it."""
    found = {picture.namespace}
    for item in [each for plural in PARTS for each in picture[plural]] + picture.nodes:
        found |= {facts.name(item), *facts.labels(item).values()}
        for container in item.get("spec", {}).get("containers") or ():
            found |= {container["name"], container["image"], *re.split("[/:@]", container["image"])}
    return frozenset(found)


def _secrets(kube: Kube) -> tuple[list[Object], list[str]]:
    try:
        return kube.every("secrets"), []
    except KubeError as error:
        if error.status != 403:
            raise
        return [], [NO_SECRETS]


def _write(bundle: Bundle, secrets: list[Object], to: Path, lines: int) -> int:
    """Complete or absent: a file of that name is replaced at the end. Only its owner may read it."""
    now = datetime.now(UTC)
    # A new file of an unforeseeable name: one that stands there already has somebody else's mode, or is a link.
    opened, name = tempfile.mkstemp(prefix=f".{to.name}.", dir=to.parent)
    part = Path(name)
    count = 0
    try:
        with os.fdopen(opened, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path, text in bundle.files(now, lines):
                _add(archive, path, bundle.mask.text(text), now)
                count += 1
            if secrets:
                shown = yaml.safe_dump_all([secret(each) for each in secrets], sort_keys=False)
                _add(archive, "objects/secrets.yaml", shown, now)
                count += 1
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
    return count


def _add(archive: tarfile.TarFile, path: str, text: str, now: datetime) -> None:
    raw = text.encode()
    member = tarfile.TarInfo(f"headrace-bundle/{path}")
    member.size, member.mtime, member.mode = len(raw), int(now.timestamp()), 0o600
    archive.addfile(member, io.BytesIO(raw))


def _container_statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _events(items: list[Object]) -> str:
    return "".join(_event(each) for each in sorted(items, key=_when))


def _when(event: Object) -> str:
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", "")
    )


def _event(event: Object) -> str:
    about = event.get("involvedObject", {})
    what = (
        f"{event.get('type', '')} {event.get('reason', '')} {about.get('kind', '')}/{about.get('name', '')}"
    )
    count = f" x{event['count']}" if (event.get("count") or 1) > 1 else ""
    return f"{_when(event)} {what}{count}: {event.get('message', '')}\n"
