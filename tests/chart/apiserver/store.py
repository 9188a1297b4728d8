"""What the server remembers: objects, the order of their changes, and who listens. Any thread may call it."""

import base64
import copy
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from tests.chart.apiserver import ownership
from tests.chart.apiserver.failure import Failure, Object, invalid, not_found
from tests.chart.apiserver.kinds import Kind, Kinds

Listener = Callable[["Change"], None]
Validate = Callable[[Object], list[str]]
# Fields that the real server never lets change.
IMMUTABLE = {
    "Deployment": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")),
    "Job": (("spec", "template"), ("spec", "selector")),
    "PersistentVolumeClaim": (("spec", "storageClassName"), ("spec", "accessModes")),
}


class Key(NamedTuple):
    kind: Kind
    namespace: str
    name: str


class Change(NamedTuple):
    version: int
    type: str  # ADDED, MODIFIED or DELETED
    kind: Kind
    object: Object
    before: Object | None


class Store:
    """`now` and `ids` give times and uids; `validate` says what is wrong with an object, by its schema."""

    def __init__(
        self, kinds: Kinds, now: Callable[[], datetime], ids: Iterator[str], validate: Validate
    ) -> None:
        self.kinds, self._now, self._ids, self._validate = kinds, now, ids, validate
        self.lock = threading.RLock()
        self.version = 100
        self.log: list[Change] = []
        self.listeners: list[Listener] = []
        self.lingering: set[tuple[str, str]] = set()  # namespace and name of pods that take their grace
        self._objects: dict[Key, Object] = {}

    def stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # --- reading

    def get(self, kind: Kind | str, namespace: str, name: str) -> Object:
        kind = self.kinds.of(kind) if isinstance(kind, str) else kind
        with self.lock:
            found = self._objects.get(Key(kind, namespace, name))
            if found is None:
                raise not_found(kind, name)
            return copy.deepcopy(found)

    def find(self, kind: Kind | str, namespace: str, name: str) -> Object | None:
        try:
            return self.get(kind, namespace, name)
        except Failure:
            return None

    def every(self, kind: Kind | str, namespace: str = "") -> list[Object]:
        kind = self.kinds.of(kind) if isinstance(kind, str) else kind
        with self.lock:
            found = [
                each
                for key, each in sorted(self._objects.items(), key=lambda item: item[0][1:])
                if key.kind is kind and namespace in ("", key.namespace)
            ]
            return copy.deepcopy(found)

    # --- writing

    def create(self, kind: Kind | str, item: Object, manager: str = "test", *, dry: bool = False) -> Object:
        kind = self.kinds.of(kind) if isinstance(kind, str) else kind
        item = copy.deepcopy(item)
        with self.lock:
            meta = item.setdefault("metadata", {})
            self._name(kind, meta)
            if Key(kind, meta.get("namespace", ""), meta["name"]) in self._objects:
                said = f'{kind.resource} "{meta["name"]}" already exists'
                raise Failure("AlreadyExists", said, kind, meta["name"])
            item |= {"apiVersion": kind.api_version, "kind": kind.kind}
            meta |= {"uid": next(self._ids), "creationTimestamp": self.stamp(), "generation": 1}
            self._complete(kind, item)
            if "managedFields" not in meta:
                ownership.updated({"metadata": {}}, item, manager, kind, "", self.stamp())
            return item if dry else self._keep(kind, item, None)

    def _name(self, kind: Kind, meta: Object) -> None:
        if "name" not in meta and "generateName" in meta:
            meta["name"] = meta["generateName"] + next(self._ids)[-5:]
        if not kind.namespaced:
            meta.pop("namespace", None)
        elif self.find("Namespace", "", meta.get("namespace", "")) is None:
            raise not_found(self.kinds.of("Namespace"), meta.get("namespace", ""))

    def replace(
        self,
        kind: Kind | str,
        item: Object,
        manager: str = "test",
        *,
        subresource: str = "",
        dry: bool = False,
    ) -> Object:
        """Raises Failure (Conflict) if the item has another resourceVersion than the store."""
        kind = self.kinds.of(kind) if isinstance(kind, str) else kind
        item = copy.deepcopy(item)
        with self.lock:
            meta = item["metadata"]
            before = self.get(kind, meta.get("namespace", ""), meta["name"])
            self._fresh(kind, before, meta)
            after = self._part(kind, before, item, subresource)
            ownership.updated(before, after, manager, kind, subresource, self.stamp())
            return self._settle(kind, before, after, dry=dry)

    def apply(
        self,
        kind: Kind,
        wanted: Object,
        manager: str,
        *,
        force: bool,
        subresource: str = "",
        dry: bool = False,
    ) -> Object:
        with self.lock:
            meta = wanted["metadata"]
            before = self.find(kind, meta.get("namespace", ""), meta["name"])
            if kind.status and not subresource:
                wanted = {name: value for name, value in wanted.items() if name != "status"}
            live = before or {"metadata": {"name": meta["name"]}}
            after = ownership.applied(live, wanted, manager, kind, force=force, now=self.stamp())
            if before is None:
                return self.create(kind, after, manager, dry=dry)
            self._fresh(kind, before, meta)
            return self._settle(kind, before, after, dry=dry)

    def _fresh(self, kind: Kind, before: Object, meta: Object) -> None:
        if (
            meta.get("resourceVersion", before["metadata"]["resourceVersion"])
            != before["metadata"]["resourceVersion"]
        ):
            said = f'Operation cannot be fulfilled on {kind.resource} "{meta["name"]}": the object has been modified;'
            raise Failure(
                "Conflict", f"{said} please apply your changes to the latest version", kind, meta["name"]
            )

    def _part(self, kind: Kind, before: Object, item: Object, subresource: str) -> Object:
        """A write to `status` changes the status only, and one to the object everything else."""
        if subresource == "status":
            return before | {"status": item.get("status", {})}
        if kind.status and "status" in before:
            item["status"] = before["status"]
        elif kind.status:
            item.pop("status", None)
        kept = ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp")
        item["metadata"] |= {name: before["metadata"][name] for name in kept if name in before["metadata"]}
        return item | {"apiVersion": kind.api_version, "kind": kind.kind}

    def _settle(self, kind: Kind, before: Object, after: Object, *, dry: bool) -> Object:
        self._refuse_change(kind, before, after)
        self._complete(kind, after)
        if _same(before, after):
            return before
        ignored = ("metadata", "status")
        if {k: v for k, v in before.items() if k not in ignored} != {
            k: v for k, v in after.items() if k not in ignored
        }:
            after["metadata"]["generation"] = before["metadata"].get("generation", 1) + 1
        return after if dry else self._keep(kind, after, before)

    def _refuse_change(self, kind: Kind, before: Object, after: Object) -> None:
        for first, second in IMMUTABLE.get(kind.kind, ()):
            old = before.get(first, {}).get(second)
            if old is not None and old != after.get(first, {}).get(second):
                raise invalid(kind, before["metadata"]["name"], f"{first}.{second}", "field is immutable")
        if before.get("immutable") and before.get("data") != after.get("data"):
            raise invalid(
                kind, before["metadata"]["name"], "data", "field is immutable when `immutable` is set"
            )

    def _complete(self, kind: Kind, item: Object) -> None:
        """The few defaults of the real server that clients look at."""
        spec = item.get("spec", {})
        if kind.scale:
            spec.setdefault("replicas", 1)
        if kind.kind == "Service" and spec.get("type", "ClusterIP") != "ExternalName":
            spec.setdefault("type", "ClusterIP")
            spec.setdefault("clusterIP", "10.96.0.1")
        if kind.kind == "Secret" and (plain := item.pop("stringData", None)):
            encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
            item["data"] = item.get("data", {}) | encoded
        if kind.kind == "Pod":
            item.setdefault("status", {}).setdefault("phase", "Pending")

    def judge(self, kind: Kind, item: Object, how: str) -> list[str]:
        """Warnings about the item by its schema. Raises Failure where `how` is Strict."""
        if how == "Ignore":
            return []
        found = self._validate(item)
        if found and how == "Strict":
            causes = [{"reason": "FieldValueInvalid", "message": each, "field": ""} for each in found]
            said = f"strict decoding error: {'; '.join(found)}"
            raise Failure("BadRequest", said, kind, item["metadata"].get("name", ""), causes)
        return found

    # --- removing

    def delete(
        self, kind: Kind | str, namespace: str, name: str, *, orphan: bool = False, dry: bool = False
    ) -> Object:
        kind = self.kinds.of(kind) if isinstance(kind, str) else kind
        with self.lock:
            found = self.get(kind, namespace, name)
            if dry:
                return found
            if found["metadata"].get("finalizers") or (
                kind.kind == "Pod" and (namespace, name) in self.lingering
            ):
                return self._condemn(kind, found)
            return self._drop(kind, found, orphan=orphan)

    def _condemn(self, kind: Kind, found: Object) -> Object:
        if "deletionTimestamp" in found["metadata"]:
            return found
        after = copy.deepcopy(found)
        after["metadata"]["deletionTimestamp"] = self.stamp()
        return self._keep(kind, after, found)

    def _drop(self, kind: Kind, found: Object, *, orphan: bool = False) -> Object:
        meta = found["metadata"]
        self.version += 1
        gone = copy.deepcopy(found)
        gone["metadata"]["resourceVersion"] = str(self.version)
        del self._objects[Key(kind, meta.get("namespace", ""), meta["name"])]
        self._tell(Change(self.version, "DELETED", kind, gone, found))
        if kind.kind == "Namespace":
            self._remove([key for key in self._objects if key.namespace == meta["name"]])
        elif not orphan:
            self._remove([key for key, each in self._objects.items() if meta["uid"] in _owners(each)])
        return gone

    def _remove(self, keys: "list[Key]") -> None:
        for key in keys:
            if key in self._objects:
                self.delete(*key)

    def end_pod(self, namespace: str, name: str) -> None:
        """What the kubelet does once a pod's processes have ended."""
        with self.lock:
            self.lingering.discard((namespace, name))
            self._drop(self.kinds.of("Pod"), self.get("Pod", namespace, name))

    # --- telling

    def _keep(self, kind: Kind, item: Object, before: Object | None) -> Object:
        meta = item["metadata"]
        if (
            before is not None
            and "deletionTimestamp" in meta
            and before["metadata"].get("finalizers")
            and not meta.get("finalizers")
        ):
            return self._drop(kind, item)
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self._objects[Key(kind, meta.get("namespace", ""), meta["name"])] = copy.deepcopy(item)
        self._tell(Change(self.version, "MODIFIED" if before else "ADDED", kind, copy.deepcopy(item), before))
        return item

    def _tell(self, change: Change) -> None:
        self.log.append(change)
        for listener in list(self.listeners):
            listener(change)


def _same(before: Object, after: Object) -> bool:
    def bare(item: Object) -> Object:
        return item | {"metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"}}

    def owners(item: Object) -> list[Object]:
        return [
            {k: v for k, v in e.items() if k != "time"} for e in item["metadata"].get("managedFields", [])
        ]

    return bare(before) == bare(after) and owners(before) == owners(after)


def _owners(item: Object) -> list[str]:
    return [owner["uid"] for owner in item["metadata"].get("ownerReferences", [])]
