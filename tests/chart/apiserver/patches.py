"""The three patches that are not server-side apply."""

import copy
from typing import Any

from tests.chart.apiserver import fields
from tests.chart.apiserver.failure import Failure, Object


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Object, operations: list[Object]) -> Object:
    """RFC 6902, without move and copy, which the clients do not send."""
    result = copy.deepcopy(target)
    for operation in operations:
        steps = [s.replace("~1", "/").replace("~0", "~") for s in operation["path"].split("/")[1:]]
        holder: Any = result
        for step in steps[:-1]:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        _operate(holder, steps[-1], operation)
    return result


def _operate(holder: Any, last: str, operation: Object) -> None:
    verb = operation["op"]
    at: Any = last
    if isinstance(holder, list):
        at = len(holder) if last == "-" else int(last)
    if verb == "remove":
        del holder[at]
    elif verb == "test":
        if holder[at] != operation["value"]:
            raise Failure("Invalid", f"the server rejected our request: test failed at {operation['path']}")
    elif verb == "add" and isinstance(holder, list):
        holder.insert(at, operation["value"])
    elif verb in ("add", "replace"):
        holder[at] = operation["value"]
    else:
        raise Failure("BadRequest", f"unknown operation {verb!r}")


def strategic(target: Any, patch: Any, name: str = "") -> Any:
    """Strategic merge: lists with keys are merged, `$patch: delete` and null remove."""
    if isinstance(patch, dict):
        return _strategic_fields(target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list) and isinstance(target, list) and name in fields.KEYS:
        return _strategic_list(target, patch, name)
    if isinstance(patch, list) and isinstance(target, list) and name in fields.SETS:
        return target + [each for each in patch if each not in target]
    return copy.deepcopy(patch)


def _strategic_fields(target: Object, patch: Object) -> Object:
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target)
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            held = key.partition("/")[2]
            result[held] = [each for each in result.get(held, []) if each not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    return result


def _strategic_list(target: list[Object], patch: list[Object], name: str) -> list[Object]:
    result = list(target)
    for each in patch:
        keys = fields.key_of(name, each) or {}
        at = next((i for i, old in enumerate(result) if fields.key_of(name, old) == keys), None)
        if each.get("$patch") == "delete":
            result = [old for old in result if fields.key_of(name, old) != keys]
        elif at is None:
            result.append(strategic({}, each))
        else:
            result[at] = strategic(result[at], each)
    return result
