"""Who owns which field: sets of paths as `managedFields` has them, and the merge that server-side apply makes of them.

A path is a tuple of FieldsV1 keys: `f:name` a field, `k:{...}` an element of a list by its keys, `v:...` a value of a
set; a trailing `.` is the element itself.
"""

import copy
import json
from collections.abc import Iterable
from typing import Any

from tests.chart.apiserver.failure import Failure, Object

Path = tuple[str, ...]
# Lists that are merged by keys; all others are replaced as a whole.
KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "ephemeralContainers": (("name",),),
    "volumes": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "secrets": (("name",),),
    "listeners": (("name",),),
    "volumeMounts": (("mountPath",),),
    "volumeDevices": (("devicePath",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "conditions": (("type",),),
    "ownerReferences": (("uid",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
}
SETS = ("finalizers",)
UNOWNED = {
    ("f:apiVersion",),
    ("f:kind",),
    *(("f:metadata", f"f:{name}") for name in ("name", "namespace", "uid", "resourceVersion", "generation")),
    *(
        ("f:metadata", f"f:{name}")
        for name in ("creationTimestamp", "managedFields", "selfLink", "generateName")
    ),
}


def key_of(name: str, element: Object) -> Object | None:
    """The keys of an element of the list called `name`, or None if the list is not merged by keys."""
    for keys in KEYS.get(name, ()):
        found = {key: element.get(key, "TCP" if key == "protocol" else None) for key in keys}
        if all(value is not None for value in found.values()):
            return found
    return None


def keyed(name: str, value: Any) -> bool:
    return (
        isinstance(value, list)
        and name in KEYS
        and all(isinstance(each, dict) and key_of(name, each) for each in value)
    )


def _label(keys: Object) -> str:
    return "k:" + json.dumps(keys, sort_keys=True, separators=(",", ":"))


def owned(value: Object) -> set[Path]:
    """Every field that an object sets."""
    return {path for path in _walk(value, ()) if path[:2] not in UNOWNED and path[:1] not in UNOWNED}


def _walk(value: Any, at: Path, name: str = "") -> Iterable[Path]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _walk(inner, (*at, f"f:{key}"), key)
    elif name in SETS and isinstance(value, list):
        yield from ((*at, f"v:{json.dumps(each)}") for each in value)
    elif value and keyed(name, value):
        for each in value:
            here = (*at, _label(key_of(name, each) or {}))
            yield (*here, ".")
            yield from _walk(each, here)
    else:
        yield at


def find(value: Any, path: Path) -> Any:
    """The value at a path, or None."""
    for step in path:
        if step == "." or value is None:
            return value
        value = _step(value, step)
    return value


def _step(value: Any, step: str) -> Any:
    if step.startswith("f:"):
        return value.get(step[2:]) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    wanted = json.loads(step[2:])
    if step.startswith("v:"):
        return wanted if wanted in value else None
    return next((each for each in value if _has(each, wanted)), None)


def _has(element: Object, keys: Object) -> bool:
    return all(element.get(key, "TCP" if key == "protocol" else None) == value for key, value in keys.items())


def remove(value: Object, path: Path) -> None:
    if path[-1] == ".":
        path = path[:-1]
    holder = find(value, path[:-1])
    if holder is None:
        return
    last = path[-1]
    if last.startswith("f:"):
        if isinstance(holder, dict):
            holder.pop(last[2:], None)
    elif (element := _step(holder, last)) is not None:
        holder.remove(element)


def merge(live: Any, wanted: Any, name: str = "") -> Any:
    """`wanted` laid over `live`, lists by their keys."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        merged = dict(live)
        for key, value in wanted.items():
            merged[key] = merge(live.get(key), value, key)
        return merged
    if name in SETS and isinstance(live, list):
        return live + [each for each in wanted if each not in live]
    if isinstance(live, list) and keyed(name, wanted) and keyed(name, live):
        return _merge_lists(live, wanted, name)
    return copy.deepcopy(wanted)


def _merge_lists(live: list[Object], wanted: list[Object], name: str) -> list[Object]:
    before = {_label(key_of(name, each) or {}): each for each in live}
    merged = {label: each for label, each in before.items()}
    order = []
    for each in wanted:
        label = _label(key_of(name, each) or {})
        merged[label] = merge(before.get(label), each)
        order.append(label)
    return [merged[label] for label in [*order, *(label for label in before if label not in order)]]


def refuse_duplicates(value: Any, name: str = "", at: str = "") -> None:
    """Raises Failure for a list that has one key twice, as the real server does."""
    if isinstance(value, dict):
        for key, inner in value.items():
            refuse_duplicates(inner, key, f"{at}.{key}")
    elif isinstance(value, list):
        labels = [_label(key_of(name, each) or {}) for each in value] if keyed(name, value) else []
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            said = f"failed to create typed patch object: {at}: duplicate entries for key {twice[0][2:]}"
            raise Failure("BadRequest", said)
        for each in value:
            refuse_duplicates(each, "", f"{at}[]")


def to_v1(paths: set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        at = tree
        for step in path:
            at = at.setdefault(step, {})
    return tree


def from_v1(tree: Object, at: Path = ()) -> set[Path]:
    if not tree:
        return {at} if at else set()
    return {path for step, inner in tree.items() for path in from_v1(inner, (*at, step))}


def spoken(path: Path) -> str:
    """.spec.template.spec.containers[name="gateway"].image, as in a conflict."""
    said = ""
    for step in path:
        if step.startswith("f:"):
            said += f".{step[2:]}"
        elif step.startswith("k:"):
            said += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(step[2:]).items()) + "]"
        elif step.startswith("v:"):
            said += f"[={step[2:]}]"
    return said
