"""Takes secrets out of text: values that are known wherever they occur, and what looks like a credential."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

Object = dict[str, Any]
MASK = "********"
SHORTEST = 6  # characters; a shorter value would take innocent words with it
LINE = 16  # characters of a line of a long value, such as a key's, that is a secret by itself
WORDS = "token|secret|passw(?:or)?d|passphrase|pepper|credential|authorization|(?:api|private|master|access)[_-]?key"
NAMED = rf"[\w.-]{{0,64}}(?:{WORDS})[\w.-]{{0,64}}"  # bounded, for a log may be one word of megabytes
SECRET_NAME = re.compile(NAMED, re.IGNORECASE)
# Names that hold a secret's whereabouts and no secret.
WHEREABOUTS = re.compile(
    r"(?:name|ref|file|path|dir|count|s_total|_total|tokens|tokenizer)$|tokens_|max_?tokens|tokenizer",
    re.IGNORECASE,
)
PATTERNS = (
    (
        re.compile(r"(?P<kept>[a-z][a-z0-9+.-]{0,30}://[^\s/@:\"']*:)[^\s/@\"']+(?=@)", re.IGNORECASE),
        rf"\g<kept>{MASK}",
    ),
    (re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\g<kept>{MASK}"),
    (re.compile(r"\bhr_[a-z0-9]{1,16}_[A-Za-z0-9]{8}_[A-Za-z0-9]{43}_[A-Za-z0-9]{6}"), MASK),
    (re.compile(r"\b(?:hf_|sk-|ghp_|glpat-|xox[a-z]-)[\w-]{16,}"), MASK),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), MASK),
    (re.compile(r"\beyJ[\w-]{8,2000}\.[\w-]{8,4000}\.[\w-]{0,1000}"), MASK),
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        MASK,
    ),
)
ASSIGNED = re.compile(
    rf"(?<![\w.-])(?P<name>{NAMED})(?P<sign>[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s\"',;}}\]]+)", re.IGNORECASE
)
NOISE = ("managedFields",)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Mask:
    """`known` are secrets in plain text. Masks them in every spelling that text may have of them."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        spellings = {each for value in known for each in _spellings(value) if len(each) >= SHORTEST}
        self._known = sorted(spellings, key=len, reverse=True)

    def text(self, text: str) -> str:
        for known in self._known:
            text = text.replace(known, MASK)
        for pattern, instead in PATTERNS:
            text = pattern.sub(instead, text)
        return ASSIGNED.sub(_assigned, text)

    def item(self, item: Object) -> Object:
        """An object other than a Secret as it may be shown: with masked environments. Secrets: `secret`."""
        shown: Object = self._inner(item)
        return shown

    def _inner(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            if "value" in value and secret_name(str(value.get("name", ""))):
                value = value | {"value": MASK}
            return {k: self._inner(v, k) for k, v in value.items() if k not in NOISE and k != LAST_APPLIED}
        if isinstance(value, list):
            return [self._inner(each, name) for each in value]
        if isinstance(value, str):
            return MASK if value and secret_name(name) else self.text(value)
        return value


def secret_name(name: str) -> bool:
    return bool(SECRET_NAME.fullmatch(name)) and not WHEREABOUTS.search(name)


def known_in(secrets: Iterable[Object]) -> Iterator[str]:
    """The plain values of Secrets, and passwords in the addresses among them. helm's own records hold no values
    that a log could repeat."""
    for secret in secrets:
        if secret.get("type") == "helm.sh/release.v1":
            continue
        for encoded in (secret.get("data") or {}).values():
            value = base64.b64decode(encoded).decode(errors="replace").strip()
            yield value
            yield from _password(value)


def _password(value: str) -> Iterator[str]:
    try:
        password = urlsplit(value).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def _spellings(value: str) -> Iterator[str]:
    yield value
    yield quote(value, safe="")
    yield json.dumps(value)[1:-1]
    for ending in ("", "\n"):
        yield base64.b64encode((value + ending).encode()).decode().rstrip("=")
    if "\n" in value:
        yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= LINE)


def _assigned(found: re.Match[str]) -> str:
    if not secret_name(found["name"]):
        return found[0]
    return f"{found['name']}{found['sign']}{MASK}"


def secret(item: Object) -> Object:
    """A Secret as it may be shown, whatever the item says that it is: names and sizes of its values."""
    sizes = {
        name: f"{MASK} ({len(base64.b64decode(v))} bytes)" for name, v in (item.get("data") or {}).items()
    }
    kept = {name: item["metadata"].get(name) for name in ("name", "namespace", "labels", "creationTimestamp")}
    return {"apiVersion": "v1", "kind": "Secret", "type": item.get("type"), "metadata": kept, "data": sizes}
