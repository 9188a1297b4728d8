"""Controllers, scheduler and kubelet, as far as a client waits for them. Each works at a write; none has a timer.

A test names the kinds that are to come alive. A pod whose image has `broken` in its tag never starts.
"""

import copy
import hashlib
import json
from collections.abc import Callable

from tests.chart.apiserver.failure import Object
from tests.chart.apiserver.pods import allowed_disruptions, ready
from tests.chart.apiserver.store import Change, Store

MANAGER = "kube-controller-manager"
ALL = (
    "Pod",
    "Deployment",
    "StatefulSet",
    "Job",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "RayService",
)
BROKEN = "broken"


class Alive:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._kinds: set[str] = set()
        self._busy: set[tuple[str, str, str]] = set()
        self.logs: dict[str, str] = {}  # what a finished pod said, by its name or its job's
        self.schedule: Callable[[Object], str] = lambda pod: "node-1"  # or "" for a pod that fits nowhere
        self.started: Callable[[Object], None] = lambda pod: None  # told of every pod that a kubelet started

    def begin(self, *kinds: str) -> None:
        """All of them, if none is named."""
        self._kinds |= set(kinds or ALL)
        if self._heard not in self._store.listeners:
            self._store.listeners.insert(0, self._heard)

    def rest(self, *kinds: str) -> None:
        """These kinds change no more by themselves."""
        self._kinds -= set(kinds)

    def _heard(self, change: Change) -> None:
        kind = change.kind.kind
        meta = change.object["metadata"]
        if kind == "Pod" and change.type == "DELETED":
            self._mourn(change.object)
        if kind not in self._kinds or change.type == "DELETED":
            return
        one = (kind, meta.get("namespace", ""), meta["name"])
        if one in self._busy:
            return
        self._busy.add(one)
        try:
            {
                "Pod": self._pod,
                "Deployment": self._workload,
                "StatefulSet": self._workload,
                "Job": self._job,
                "PersistentVolumeClaim": self._claim,
                "PodDisruptionBudget": self._budget,
                "RayService": self._ray,
            }[kind](self._store.get(*one))
        finally:
            self._busy.discard(one)

    def status(self, item: Object, status: Object) -> Object:
        """Writes a status as the controller of the kind does."""
        found = self._store.get(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
        found["status"] = found.get("status", {}) | status
        return self._store.replace(item["kind"], found, MANAGER, subresource="status")

    # --- pods

    def _pod(self, pod: Object) -> None:
        if pod["status"].get("phase") != "Pending" or "deletionTimestamp" in pod["metadata"]:
            return
        if not pod["spec"].get("nodeName"):
            node = self.schedule(pod)
            if not node:
                said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                self.status(
                    pod,
                    {
                        "conditions": [
                            said | {"message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}
                        ]
                    },
                )
                return
            pod["spec"]["nodeName"] = node
            pod = self._store.replace("Pod", pod, "kube-scheduler")
        if pod["spec"].get("restartPolicy") == "Never":
            self.finish(pod)
        elif any(BROKEN in each["image"] for each in pod["spec"]["containers"]):
            self._stuck(pod)
        else:
            self.start(pod)

    def start(self, pod: Object) -> None:
        states = [
            _container(each, {"running": {"startedAt": self._store.stamp()}})
            for each in pod["spec"]["containers"]
        ]
        self.status(
            pod, {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": states} | _conditions(True)
        )
        self.started(self._store.get("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def _stuck(self, pod: Object) -> None:
        image = pod["spec"]["containers"][0]["image"]
        waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
        states = [_container(each, {"waiting": waiting}, good=False) for each in pod["spec"]["containers"]]
        self.status(pod, {"phase": "Pending", "containerStatuses": states} | _conditions(False))

    def finish(self, pod: Object) -> None:
        """A pod that runs once: it succeeds unless its image is broken."""
        bad = any(BROKEN in each["image"] for each in pod["spec"]["containers"])
        ended = {"terminated": {"exitCode": int(bad), "reason": "Error" if bad else "Completed"}}
        states = [_container(each, ended, good=False) for each in pod["spec"]["containers"]]
        self.status(
            pod, {"phase": "Failed" if bad else "Succeeded", "containerStatuses": states} | _conditions(False)
        )

    def _mourn(self, pod: Object) -> None:
        """The owner of a pod that has gone makes another one."""
        for owner in pod["metadata"].get("ownerReferences", ()):
            workload = self._store.find(owner["kind"], pod["metadata"]["namespace"], owner["name"])
            if owner["kind"] in self._kinds and workload is not None:
                one = (owner["kind"], pod["metadata"]["namespace"], owner["name"])
                if one not in self._busy:
                    self._workload(workload)

    # --- workloads

    def _workload(self, item: Object) -> None:
        """New pods first; the old ones go once the new ones are ready."""
        mine = self._pods_of(item)
        revision = _digest(item["spec"]["template"])
        fresh = [pod for pod in mine if pod["metadata"]["labels"]["revision"] == revision]
        count = item["spec"]["replicas"]
        for index in range(len(fresh), count):
            self._make_pod(item, revision, index)
        fresh = [pod for pod in self._pods_of(item) if pod["metadata"]["labels"]["revision"] == revision]
        one = (item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])
        self._busy.add(one)
        try:
            old = [pod for pod in mine if pod["metadata"]["labels"]["revision"] != revision]
            for pod in fresh[count:] + (old if all(map(ready, fresh)) else []):
                self._store.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        finally:
            self._busy.discard(one)
        self._report(item, fresh[:count])

    def _pods_of(self, item: Object) -> list[Object]:
        uid = item["metadata"]["uid"]
        found = self._store.every("Pod", item["metadata"]["namespace"])
        return [
            pod for pod in found if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences", ()))
        ]

    def _make_pod(self, item: Object, revision: str, index: int) -> None:
        template = copy.deepcopy(item["spec"]["template"])
        meta = template.setdefault("metadata", {})
        taken = {pod["metadata"]["name"] for pod in self._pods_of(item)}
        name = item["metadata"]["name"]
        stem = name if item["kind"] == "StatefulSet" else f"{name}-{revision}"
        names = (f"{stem}-{number}" for number in range(index, index + len(taken) + 1))
        meta |= {
            "name": next(name for name in names if name not in taken),
            "namespace": item["metadata"]["namespace"],
        }
        meta["labels"] = meta.get("labels", {}) | {"revision": revision}
        meta["ownerReferences"] = [owner(item)]
        self._store.create("Pod", template, MANAGER)

    def _report(self, item: Object, fresh: list[Object]) -> None:
        good = sum(1 for pod in fresh if ready(pod))
        done = good == item["spec"]["replicas"]
        progress = "NewReplicaSetAvailable" if done else "ProgressDeadlineExceeded"
        status: Object = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(fresh),
            "updatedReplicas": len(fresh),
            "readyReplicas": good,
            "availableReplicas": good,
        }
        if item["kind"] == "Deployment":
            status["conditions"] = [
                {"type": "Available", "status": str(done), "reason": "MinimumReplicasAvailable"},
                {
                    "type": "Progressing",
                    "status": str(done),
                    "reason": progress,
                    "message": "the pods do not start",
                },
            ]
        else:
            revision = _digest(item["spec"]["template"])
            status |= {"currentReplicas": good, "currentRevision": revision, "updateRevision": revision}
        self.status(item, status)

    def _job(self, item: Object) -> None:
        if item.get("status", {}).get("conditions"):
            return
        self._make_pod(item, "run", 0)
        bad = any(pod["status"]["phase"] != "Succeeded" for pod in self._pods_of(item))
        condition = {
            "type": "Failed" if bad else "Complete",
            "status": "True",
            "reason": "BackoffLimitExceeded" if bad else "CompletionsReached",
        }
        self.status(item, {"conditions": [condition], "succeeded": int(not bad), "failed": int(bad)})

    def _claim(self, item: Object) -> None:
        self.status(item, {"phase": "Bound"})

    def _budget(self, item: Object) -> None:
        spare = allowed_disruptions(self._store, item)
        reason = "SufficientPods" if spare > 0 else "SyncFailed" if spare < 0 else "InsufficientPods"
        said = "rayclusters.ray.io does not implement the scale subresource" if spare < 0 else ""
        condition = {"type": "DisruptionAllowed", "status": str(spare > 0), "reason": reason, "message": said}
        counts = {"currentHealthy": max(spare, 0), "desiredHealthy": 0, "expectedPods": max(spare, 0)}
        generation = item["metadata"]["generation"]
        status = {
            "observedGeneration": generation,
            "disruptionsAllowed": max(spare, 0),
            "conditions": [condition],
        }
        self.status(item, status | counts)

    # --- what the operators of others do

    def scale(self, namespace: str, deployment: str, replicas: int) -> None:
        """What a HorizontalPodAutoscaler does: it takes `replicas` for its own."""
        item = self._store.get("Deployment", namespace, deployment)
        item["spec"]["replicas"] = replicas
        self._store.replace("Deployment", item, MANAGER, subresource="scale")

    def _ray(self, item: Object) -> None:
        from tests.chart.apiserver.ray import reconcile

        reconcile(self._store, self, item)


def owner(item: Object) -> Object:
    meta = item["metadata"]
    named = {"kind": item["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {"apiVersion": item["apiVersion"], **named, "controller": True, "blockOwnerDeletion": True}


def _container(spec: Object, state: Object, *, good: bool = True) -> Object:
    named = {"name": spec["name"], "image": spec["image"], "imageID": "", "restartCount": 0}
    return {**named, "ready": good, "started": good, "state": state}


def _conditions(good: bool) -> Object:
    names = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    verdicts = {name: str(good or name in names[:2]) for name in names}
    return {"conditions": [{"type": name, "status": verdict} for name, verdict in verdicts.items()]}


def _digest(value: Object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
