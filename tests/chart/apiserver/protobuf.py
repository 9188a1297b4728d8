"""Bodies in protobuf, which client-go's typed clients write: the few messages that helm and kubectl send.

Field numbers are those of Kubernetes' generated.proto files; an unknown kind is refused, not guessed.
"""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tests.chart.apiserver.failure import Failure, Object

MAGIC = b"k8s\x00"
# By field number: name and type. A type is s string, b bytes, i integer, ? boolean, t time or another message, with []
# before it repeated, with {} a map of such values.
MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "b")},
    "TypeMeta": {1: ("apiVersion", "s"), 2: ("kind", "s")},
    "ObjectMeta": {
        1: ("name", "s"),
        2: ("generateName", "s"),
        3: ("namespace", "s"),
        5: ("uid", "s"),
        6: ("resourceVersion", "s"),
        8: ("creationTimestamp", "t"),
        11: ("labels", "{}s"),
        12: ("annotations", "{}s"),
        13: ("ownerReferences", "[]OwnerReference"),
        14: ("finalizers", "[]s"),
    },
    "OwnerReference": {
        1: ("kind", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
        5: ("apiVersion", "s"),
        6: ("controller", "?"),
        7: ("blockOwnerDeletion", "?"),
    },
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "{}b"),
        3: ("type", "s"),
        4: ("stringData", "{}s"),
        5: ("immutable", "?"),
    },
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "{}s"), 3: ("binaryData", "{}b")},
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "i"),
        2: ("preconditions", "Preconditions"),
        4: ("propagationPolicy", "s"),
        5: ("dryRun", "[]s"),
    },
    "Preconditions": {1: ("uid", "s"), 2: ("resourceVersion", "s")},
    "Eviction": {1: ("metadata", "ObjectMeta"), 2: ("deleteOptions", "DeleteOptions")},
    "Scale": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ScaleSpec")},
    "ScaleSpec": {1: ("replicas", "i")},
    "SelfSubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "AccessReviewSpec")},
    "AccessReviewSpec": {1: ("resourceAttributes", "ResourceAttributes")},
    "ResourceAttributes": {
        1: ("namespace", "s"),
        2: ("verb", "s"),
        3: ("group", "s"),
        4: ("version", "s"),
        5: ("resource", "s"),
        6: ("subresource", "s"),
        7: ("name", "s"),
    },
}


def decode(body: bytes) -> Object:
    """The object of a body that begins with MAGIC. Raises Failure for a kind that is not listed here."""
    envelope = _message("Unknown", body.removeprefix(MAGIC))
    named = envelope["typeMeta"]
    if named["kind"] not in MESSAGES:
        raise Failure("UnsupportedMediaType", f"{named['kind']} is not read as protobuf here: send JSON")
    found: Object = named | _message(named["kind"], base64.b64decode(envelope.get("raw", "")))
    return found


def _message(name: str, raw: bytes) -> Object:
    found: Object = {}
    for number, value in _parts(raw):
        if number not in MESSAGES[name]:
            continue
        field, type_ = MESSAGES[name][number]
        if type_.startswith("[]"):
            found.setdefault(field, []).append(_value(type_[2:], value))
        elif type_.startswith("{}"):
            pair = dict(_parts(bytes(value)))
            found.setdefault(field, {})[bytes(pair[1]).decode()] = _value(type_[2:], pair.get(2, b""))
        else:
            found[field] = _value(type_, value)
    return {field: value for field, value in found.items() if value != ""}


def _value(type_: str, value: Any) -> Any:
    if type_ == "s":
        return value.decode()
    if type_ == "b":
        return base64.b64encode(value).decode()
    if type_ == "?":
        return bool(value)
    if type_ == "i":
        return value
    if type_ == "t":
        seconds = dict(_parts(value)).get(1)
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""
    return _message(type_, value)


def _parts(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers with their values: integers, or bytes."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _varint(raw, at)
            yield tag >> 3, raw[at : at + size]
            at += size
        else:
            raise Failure("BadRequest", f"wire type {tag & 7} is not expected in these messages")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at
