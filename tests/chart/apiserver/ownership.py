"""Server-side apply with conflicts, and the ownership that other writes leave behind."""

import copy
from dataclasses import dataclass, field

from tests.chart.apiserver import fields
from tests.chart.apiserver.failure import Failure, Object
from tests.chart.apiserver.fields import Path
from tests.chart.apiserver.kinds import Kind


@dataclass(slots=True)
class Entry:
    """What one manager owns through one kind of operation."""

    manager: str
    operation: str
    subresource: str = ""
    paths: set[Path] = field(default_factory=set)
    time: str = ""

    @property
    def who(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


def read(live: Object) -> list[Entry]:
    return [
        Entry(
            each.get("manager", "unknown"),
            each.get("operation", "Update"),
            each.get("subresource", ""),
            fields.from_v1(each.get("fieldsV1", {})),
            each.get("time", ""),
        )
        for each in live.get("metadata", {}).get("managedFields", [])
    ]


def write(target: Object, entries: list[Entry], kind: Kind, now: str) -> None:
    target["metadata"]["managedFields"] = [
        {
            "manager": each.manager,
            "operation": each.operation,
            "apiVersion": kind.api_version,
            "time": each.time or now,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields.to_v1(each.paths),
        }
        | ({"subresource": each.subresource} if each.subresource else {})
        for each in entries
        if each.paths
    ]


def applied(live: Object, wanted: Object, manager: str, kind: Kind, *, force: bool, now: str) -> Object:
    """`live` after `manager` applied `wanted`. Raises Failure (Conflict) naming the owners of contested fields."""
    fields.refuse_duplicates(wanted)
    entries = read(live)
    mine = _entry(entries, Entry(manager, "Apply"))
    asked = fields.owned(wanted)
    others = [each for each in entries if each is not mine]
    contested = [
        (each, path)
        for each in others
        for path in sorted(each.paths & asked)
        if path[-1] != "." and fields.find(live, path) != fields.find(wanted, path)
    ]
    if contested and not force:
        raise _conflict(kind, wanted["metadata"].get("name", ""), contested)
    for each, path in contested:
        each.paths.discard(path)
    result: Object = _without(live, mine.paths - asked, others, wanted)
    result = fields.merge(result, {k: v for k, v in wanted.items() if k != "metadata"})
    allowed = {
        k: v for k, v in wanted["metadata"].items() if k not in ("managedFields", "resourceVersion", "uid")
    }
    result["metadata"] = fields.merge(result["metadata"], allowed)
    if mine.paths != asked:
        mine.paths, mine.time = asked, now
    write(result, entries, kind, now)
    return result


def _without(live: Object, dropped: set[Path], others: list[Entry], wanted: Object) -> Object:
    result = copy.deepcopy(live)
    kept = {path for each in others for path in each.paths}
    for path in sorted(dropped - kept, key=len):
        if fields.find(wanted, path) is None:
            fields.remove(result, path)
    return result


def _entry(entries: list[Entry], like: Entry) -> Entry:
    found = next((each for each in entries if each.who == like.who), None)
    if found is None:
        entries.append(like)
    return found or like


def _conflict(kind: Kind, name: str, contested: list[tuple[Entry, Path]]) -> Failure:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{each.manager}"'
            + (f' with subresource "{each.subresource}"' if each.subresource else "")
            + f" using {kind.api_version}",
            "field": fields.spoken(path),
        }
        for each, path in contested
    ]
    count = f"{len(causes)} conflict" + ("s" if len(causes) > 1 else "")
    said = ", ".join(f"{each['message']}: {each['field']}" for each in causes)
    return Failure("Conflict", f"Apply failed with {count}: {said}", kind, name, causes)


def updated(before: Object, after: Object, manager: str, kind: Kind, subresource: str, now: str) -> None:
    """Gives `after`'s changed fields to `manager`, in place."""
    given = after["metadata"].get("managedFields")
    if before and given is not None and given != before["metadata"].get("managedFields"):
        return  # the writer set the owners itself, as a client does that moves from one kind of apply to the other
    entries = read(before)
    had, has = fields.owned(before), fields.owned(after)
    changed = {p for p in has if p not in had or fields.find(before, p) != fields.find(after, p)}
    for each in entries:
        each.paths -= changed | (had - has)
    if changed:
        mine = _entry(entries, Entry(manager, "Update", subresource))
        mine.paths |= changed
        mine.time = now
    write(after, entries, kind, now)
