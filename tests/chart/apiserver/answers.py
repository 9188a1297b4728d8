"""Requests and their answers, watches excepted."""

import copy
from typing import Any

from tests.chart.apiserver import patches, pods, rbac, tables
from tests.chart.apiserver.asked import Asked
from tests.chart.apiserver.failure import Failure, Object
from tests.chart.apiserver.selectors import fields_match, labels_match
from tests.chart.apiserver.store import Store

SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
Answer = tuple[int, Object | str]
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


def verb_of(method: str, asked: Asked) -> str:
    if method == "GET":
        if asked.name:
            return "get"
        return "watch" if asked.query.get("watch") in ("true", "1") else "list"
    if method == "DELETE":
        return "delete" if asked.name else "deletecollection"
    return VERBS[method]


def permit(store: Store, method: str, asked: Asked) -> None:
    resource = f"{asked.kind.plural}/{asked.part}" if asked.part else asked.kind.plural
    act = rbac.Act(verb_of(method, asked), asked.kind.group, resource, asked.namespace, asked.name)
    rbac.demand(store, asked.user, act, asked.kind)


class Answers:
    def __init__(self, store: Store, scripts: pods.Scripts) -> None:
        self._store, self._scripts = store, scripts

    def of(self, method: str, asked: Asked) -> Answer:
        permit(self._store, method, asked)
        if asked.part and asked.part != "status":
            return self._part(method, asked)
        return getattr(self, f"_{method.lower()}")(asked)  # type: ignore[no-any-return]

    # --- reading

    def _get(self, asked: Asked) -> Answer:
        if asked.name:
            found = self._store.get(asked.kind, asked.namespace, asked.name)
            return 200, self._shown([found], asked) if asked.tabled else found
        found_all, more = self._page(self.matching(asked), asked.query)
        if asked.tabled:
            return 200, self._shown(found_all, asked)
        meta = {"resourceVersion": str(self._store.version)} | more
        kind = {"kind": f"{asked.kind.kind}List", "apiVersion": asked.kind.api_version}
        return 200, {**kind, "metadata": meta, "items": [_listed(each, asked) for each in found_all]}

    def matching(self, asked: Asked) -> list[Object]:
        return [each for each in self._store.every(asked.kind, asked.namespace) if selected(asked, each)]

    def _page(self, items: list[Object], query: dict[str, str]) -> tuple[list[Object], Object]:
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0)
        if not limit or start + limit >= len(items):
            return items[start:], {}
        left = len(items) - start - limit
        return items[start : start + limit], {"continue": str(start + limit), "remainingItemCount": left}

    def _shown(self, items: list[Object], asked: Asked) -> Object:
        return tables.table(asked.kind, items, str(self._store.version), self._store._now())

    # --- writing

    def _post(self, asked: Asked) -> Answer:
        item = self._placed(asked.item, asked)
        self._store.judge(asked.kind, item, asked.judged)
        return 201, self._store.create(asked.kind, item, asked.manager, dry=asked.dry)

    def _put(self, asked: Asked) -> Answer:
        item = self._placed(asked.item, asked)
        self._store.judge(asked.kind, item, asked.judged)
        return 200, self._store.replace(
            asked.kind, item, asked.manager, subresource=asked.part, dry=asked.dry
        )

    def _patch(self, asked: Asked) -> Answer:
        if "apply-patch" in asked.media:
            return self._apply(asked)
        before = self._store.get(asked.kind, asked.namespace, asked.name)
        after: Any = _patched(before, asked)
        self._store.judge(asked.kind, after, asked.judged)
        return 200, self._store.replace(
            asked.kind, after, asked.manager, subresource=asked.part, dry=asked.dry
        )

    def _apply(self, asked: Asked) -> Answer:
        item = self._placed(asked.item, asked)
        self._store.judge(asked.kind, item, asked.judged)
        if not asked.query.get("fieldManager"):
            raise Failure("BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        existed = self._store.find(asked.kind, asked.namespace, asked.name)
        found = self._store.apply(
            asked.kind, item, asked.manager, force=asked.force, subresource=asked.part, dry=asked.dry
        )
        return 200 if existed else 201, found

    def _placed(self, item: Object, asked: Asked) -> Object:
        meta = item.setdefault("metadata", {})
        if asked.kind.namespaced and meta.setdefault("namespace", asked.namespace) != asked.namespace:
            said = "the namespace of the provided object does not match the namespace sent on the request"
            raise Failure("BadRequest", said, asked.kind, meta.get("name", ""))
        if asked.name and meta.setdefault("name", asked.name) != asked.name:
            raise Failure("BadRequest", "the name of the object does not match the name on the URL")
        return item

    def _delete(self, asked: Asked) -> Answer:
        body = asked.body if isinstance(asked.body, dict) else {}
        policy = body.get("propagationPolicy") or asked.query.get("propagationPolicy")
        how = {"orphan": policy == "Orphan", "dry": asked.dry}
        names = [asked.name] if asked.name else [each["metadata"]["name"] for each in self.matching(asked)]
        gone = [self._store.delete(asked.kind, asked.namespace, name, **how) for name in names]
        return 200, gone[0] if asked.name and "deletionTimestamp" in gone[0]["metadata"] else SUCCESS

    # --- parts

    def _part(self, method: str, asked: Asked) -> Answer:
        if asked.part == "scale" and asked.kind.scale:
            return self._scale(method, asked)
        if asked.kind.kind == "Pod" and asked.part in ("log", "eviction", "proxy"):
            return self._pod_part(asked)
        raise Failure("NotFound", "the server could not find the requested resource", asked.kind, asked.name)

    def _pod_part(self, asked: Asked) -> Answer:
        pod = self._store.get(asked.kind, asked.namespace, asked.name.partition(":")[0])
        if asked.part == "log":
            return 200, self._scripts.log(pod, asked.query)
        if asked.part == "eviction":
            options = asked.item.get("deleteOptions") or {}
            pods.evict(self._store, pod, dry=asked.dry or bool(options.get("dryRun")))
            return 201, SUCCESS
        page = self._scripts.page(asked.namespace, asked.name, asked.rest)
        if page is None:
            raise Failure("NotFound", f"no endpoint answers at {asked.name}/{asked.rest}")
        return 200, page

    def _scale(self, method: str, asked: Asked) -> Answer:
        item = self._store.get(asked.kind, asked.namespace, asked.name)
        if method != "GET":
            wanted = patches.merge_patch(_scale_of(item), asked.item)
            item["spec"]["replicas"] = wanted["spec"]["replicas"]
            item = self._store.replace(asked.kind, item, asked.manager, subresource="scale", dry=asked.dry)
        return 200, _scale_of(item)


def _scale_of(item: Object) -> Object:
    kept = {k: item["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")}
    count = item["spec"]["replicas"]
    status = {"replicas": item.get("status", {}).get("replicas", count)}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {"replicas": count},
        "status": status,
    }


def selected(asked: Asked, item: Object) -> bool:
    named = not asked.name or item["metadata"]["name"] == asked.name
    labels = labels_match(asked.query.get("labelSelector", ""), item["metadata"].get("labels", {}))
    return named and labels and fields_match(asked.query.get("fieldSelector", ""), item)


def _listed(item: Object, asked: Asked) -> Object:
    """As an item of a list: the real server leaves out what the list's own kind says, but of custom resources."""
    if asked.kind.custom:
        return item
    return {name: value for name, value in item.items() if name not in ("kind", "apiVersion")}


def _patched(before: Object, asked: Asked) -> Object:
    body, before = copy.deepcopy(asked.body), copy.deepcopy(before)
    if "json-patch" in asked.media and isinstance(body, list):
        return patches.json_patch(before, body)
    if "strategic" in asked.media:
        return patches.strategic(before, body)  # type: ignore[no-any-return]
    return patches.merge_patch(before, body)  # type: ignore[no-any-return]
