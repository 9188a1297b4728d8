"""Takes secrets out of text and objects: known values wherever they occur, and what looks like a credential."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from services.cli.cluster import shapes
from services.cli.cluster.known import SHORTEST
from services.cli.cluster.shapes import MASK, innocent, secret_name

Object = dict[str, Any]
LINE = 16  # characters of a line of a long value, such as a key's, that is a secret by itself
NOISE = ("managedFields",)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
VALUES = ("value", "default", "plain", "plaintext", "literal")  # keys of what has its name beside or above it
# Keys below a secret's name that say where the secret is or how it is made.
ABOUT = re.compile(
    r".*(?:name|ref|file|path|dir)|key|kind|apiVersion|namespace|type|audience|mode|algorithm|encoding|rotationPolicy",
    re.IGNORECASE,
)


class Mask:
    """`known` are secrets in plain text. Masks them in every spelling that text may have of them; those of a few
    letters only where they are a word."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        values = set(known) - {""}
        spellings = {each for value in values for each in _spellings(value) if len(each) >= SHORTEST}
        self._known = sorted(spellings, key=len, reverse=True)
        short = sorted((re.escape(each) for each in values if len(each) < SHORTEST), key=len, reverse=True)
        self._short = re.compile(rf"(?<!\w)(?:{'|'.join(short)})(?!\w)") if short else None

    def text(self, text: str) -> str:
        for known in self._known:
            text = text.replace(known, MASK)
        if self._short:
            text = self._short.sub(MASK, text)
        return shapes.masked(text)

    def document(self, text: str) -> str:
        """Text that may be JSON, as annotations and settings are: then by its names, too."""
        if text.lstrip()[:1] not in ("{", "["):
            return self.text(text)
        try:
            found = json.loads(text)
            shown = self._inner(found)
        except (ValueError, RecursionError):
            return self.text(text)
        return self.text(text if shown == found else json.dumps(shown, ensure_ascii=False))

    def item(self, item: Object) -> Object:
        """An object other than a Secret as it may be shown: with masked environments. Secrets: `secret`."""
        shown: Object = self._inner(item)
        return shown

    def _inner(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k not in NOISE and k != LAST_APPLIED}
            return {k: self._child(value, name, k, v) for k, v in kept.items()}
        if isinstance(value, list):
            return list(self._each(value, name))
        if isinstance(value, str):
            return MASK if secret_name(name) and not innocent(value) else self.document(value)
        return value

    def _child(self, parent: Object, name: str, key: str, value: Any) -> Any:
        if key == "binaryData" and isinstance(value, dict):
            return {each: f"({len(str(encoded))} characters)" for each, encoded in value.items()}
        called = _called(parent, name, key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return MASK if secret_name(called) and (called == key or key in VALUES) else value
        return self._inner(value, called)

    def _each(self, items: list[Any], name: str) -> Iterator[Any]:
        """Items, of which one may be the value of the flag before it."""
        flag = ""
        for each in items:
            is_value = bool(flag) and isinstance(each, str) and not each.startswith("--")
            yield self._inner(each, flag if is_value else name)
            flag = _flag(each, items) if isinstance(each, str) and not is_value else ""


def _called(parent: Object, name: str, key: str) -> str:
    """The name that says what the value of `key` is: a container's variable, an outer secret's, or its own."""
    beside = str(parent.get("name", ""))
    if key in VALUES and secret_name(beside):
        return beside
    return name if secret_name(name) and not secret_name(key) and not ABOUT.fullmatch(key) else key


def _flag(word: str, words: list[Any]) -> str:
    """The name of the secret that the next word is, or nothing."""
    bare = word.lstrip("-")
    if word == "-a" and any(str(each).endswith("-cli") for each in words):
        return "password"
    is_flag = bare != word or bare in ("requirepass", "masterauth")
    return bare if is_flag and secret_name(bare) else ""


def _spellings(value: str) -> Iterator[str]:
    yield value
    yield quote(value, safe="")
    yield quote_plus(value)
    yield repr(value)[1:-1]
    for ascii_ in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_)[1:-1]
    for ending in ("", "\n"):
        yield base64.b64encode((value + ending).encode(errors="replace")).decode().rstrip("=")
    if "\n" in value:
        yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= LINE)


def secret(item: Object) -> Object:
    """A Secret as it may be shown, whatever the item says that it is: names and sizes of its values."""
    sizes = {
        name: f"{MASK} ({len(base64.b64decode(v))} bytes)" for name, v in (item.get("data") or {}).items()
    }
    kept = {name: item["metadata"].get(name) for name in ("name", "namespace", "labels", "creationTimestamp")}
    return {"apiVersion": "v1", "kind": "Secret", "type": item.get("type"), "metadata": kept, "data": sizes}
