"""Label and field selectors, as in a list's query."""

import re

from tests.chart.apiserver.failure import Failure, Object


def labels_match(written: str, labels: dict[str, str]) -> bool:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k`."""
    return all(_label(part.strip(), labels) for part in re.split(r",(?![^(]*\))", written) if part.strip())


def _label(part: str, labels: dict[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", part):
        name, verb, values = found.groups()
        inside = labels.get(name) in [value.strip() for value in values.split(",")]
        return inside if verb == "in" else not inside
    if found := re.fullmatch(r"([^=!]+)(!=|==|=)(.*)", part):
        name, verb, value = found.groups()
        return (labels.get(name.strip()) == value.strip()) is (verb != "!=")
    return part[1:] not in labels if part.startswith("!") else part in labels


def fields_match(written: str, item: Object) -> bool:
    return all(_field(part, item) for part in written.split(",") if part)


def _field(part: str, item: Object) -> bool:
    found = re.fullmatch(r"([^=!]+)(!=|==|=)(.*)", part)
    if found is None:
        raise Failure("BadRequest", f"invalid field selector {part!r}")
    name, verb, value = found.groups()
    at: object = item
    for step in name.split("."):
        at = at.get(step) if isinstance(at, dict) else None
    return (("" if at is None else str(at)) == value) is (verb != "!=")


def selector_matches(selector: Object, labels: dict[str, str]) -> bool:
    """A LabelSelector object; an empty one matches everything."""
    for each in selector.get("matchExpressions", ()):
        listed = labels.get(each["key"]) in each.get("values", ())
        present = each["key"] in labels
        operator = each["operator"]
        if not {"In": listed, "NotIn": not listed, "Exists": present, "DoesNotExist": not present}[operator]:
            return False
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
