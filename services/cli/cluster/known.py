"""What Secrets hold: the values that must not stand anywhere else, whole and in their parts."""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

import yaml

from services.cli.cluster.shapes import secret_name
from services.store.address import split

Object = dict[str, Any]
SHORTEST = 6  # characters; a shorter value that is not called a secret would take innocent words with it
SHORTEST_NAMED = 3  # of one that is called a secret
WORD = 8  # characters of a word in a line that is a secret by its looks
QUOTES = "\"'`"
AROUND = QUOTES + ",;()[]{}"  # a word of a line
DEPTH = 3  # of what is encoded in what is encoded
HELM = "helm.sh/release.v1"
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
# Words of settings and access lists that logs are full of.
_COMMON = """
    default warning warnings information critical enabled disabled production development staging localhost kubernetes
    standard sentinel cluster standalone gateway engine headrace valkey sglang allkeys allchannels allcommands nopass
    resetpass resetkeys resetchannels clearselectors sanitize-payload skip-sanitize-payload username password machine
    account"""
COMMON = frozenset(_COMMON.split())
_PLAIN = re.compile(r"user|name|host|mode|level", re.IGNORECASE)  # in names of values that may be such a word


def known_in(secrets: Iterable[Object], public: frozenset[str] = frozenset()) -> Iterator[str]:
    """Plain values of Secrets and their parts. `public` are names that everybody may see, and that an operator
    needs: a part that is one of them is not sought."""
    for secret in secrets:
        data = secret.get("data") or {}
        if secret.get("type") == HELM:
            yield from (each for encoded in data.values() for each in _recorded(encoded, public))
            continue
        for name, encoded in data.items():
            if len(encoded) >= SHORTEST:
                yield encoded  # as a value is seen that is no text
            yield from _known(name, base64.b64decode(encoded).decode(errors="replace").strip(), public)


def _known(name: str, value: str, public: frozenset[str]) -> Iterator[str]:
    innocent = public | COMMON
    if secret_name(name) or value not in (innocent if _PLAIN.search(name) else public):
        yield from _long_enough(name, value)
    for called, part in _parts(name, value):
        if secret_name(called) or part not in innocent:
            yield from _long_enough(called, part)


def _long_enough(name: str, value: str) -> Iterator[str]:
    if len(value) >= (SHORTEST_NAMED if secret_name(name) else SHORTEST):
        yield value


def _parts(name: str, text: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """What a value consists of, each with the name that it goes by there."""
    for password in _password(text):
        yield "password", password
    if text.startswith("-----BEGIN"):
        return  # its lines are looked for as they are, and a bundle of authorities has thousands of them
    tree = _tree(text)
    found = list(_tokens(text) if tree is None else _leaves(tree, name, set()))
    if (decoded := _decoded(text)) is not None:
        found.append((name, decoded))
    for called, part in found:
        yield called, part
        if part != text and depth < DEPTH:
            yield from _parts(called, part, depth + 1)


def _password(value: str) -> Iterator[str]:
    if password := split(value).password:
        yield password
        yield unquote(password)


def _tree(text: str) -> Any:
    """JSON or YAML with names or items in it, or None. All its leaves are text."""
    if ":" not in text and not text.lstrip().startswith(("[", "- ")):
        return None
    try:
        found = yaml.load(text, LOADER)  # noqa: S506 - this loader makes text, lists and mappings only
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        try:
            found = json.loads(text, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict | list) else None


def _leaves(tree: Any, name: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """An anchor of YAML is gone into once: they can be nested to any number of leaves."""
    if isinstance(tree, str):
        yield name, tree
    elif isinstance(tree, dict | list) and id(tree) not in seen:
        seen.add(id(tree))
        for called, each in tree.items() if isinstance(tree, dict) else ((name, each) for each in tree):
            carried = name if secret_name(name) and not secret_name(str(called)) else str(called)
            yield from _leaves(each, carried, seen)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 1:
            yield "", words[0]
            yield "", words[0].rpartition(":")[2]  # .pgpass and the like end in the password
        before = ""
        for word in (each.strip(AROUND) for each in words):
            yield from _word(before, word)
            before = word if word.strip("=:") else before


def _word(before: str, word: str) -> Iterator[tuple[str, str]]:
    bare = word.lstrip("><#")
    if bare != word:
        yield "password", bare  # of an access list
    elif secret_name(before):
        yield before, bare
    elif len(bare) >= WORD and not bare.isalpha():
        yield "", bare
    if pair := re.fullmatch("([^=:]*)[=:](.+)", bare):
        yield pair[1], pair[2].strip(QUOTES)


def _decoded(text: str) -> str | None:
    if len(text) < WORD or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text):
        return None
    try:
        found = base64.b64decode(text, validate=True).decode()
    except ValueError:
        return None
    return found if found.isprintable() else None


def _recorded(encoded: str, public: frozenset[str]) -> Iterator[str]:
    """helm's record of a release: secrets among its values, and Secrets among its objects, maybe older than today's."""
    try:
        record = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(encoded))))
        values, manifest = record.get("config"), str(record.get("manifest", ""))
    except (ValueError, OSError, EOFError, AttributeError, RecursionError):
        return
    for name, value in _leaves(json.loads(json.dumps(values or {}), parse_int=str), "", set()):
        if secret_name(name):
            yield from _known(name, value, public)
    for written in manifest.split("\n---"):
        if "kind: Secret" in written:
            yield from _written(written, public)


def _written(manifest: str, public: frozenset[str]) -> Iterator[str]:
    found = _tree(manifest)
    if not isinstance(found, dict) or found.get("kind") != "Secret":
        return
    plain = found.get("stringData")
    for name, value in plain.items() if isinstance(plain, dict) else ():
        yield from _known(name, str(value), public)
    try:
        yield from known_in([{"data": found.get("data") or {}}], public)
    except (ValueError, AttributeError, TypeError):
        return
