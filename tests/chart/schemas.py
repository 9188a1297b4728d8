"""Rendered objects against the schemas that an API server would hold them to, strictly: an unknown field is an error.

Built-in kinds come from kubernetes-validate, custom ones from `crds/`; those with their CEL rules, after defaulting.
Lists that merge by key must not repeat a key: a server-side apply refuses that.
"""

import copy
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import cel
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

CRDS = Path(__file__).parent / "crds"
# Words that CEL reserves: a schema's rules spell such fields __word__.
RESERVED = (
    "namespace",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
)

Node = Mapping[str, Any]


def problems(item: Mapping[str, Any], version: str) -> list[str]:
    """Why an API server of `version` ("1.34") would refuse `item`."""
    kind, api = item["kind"], item["apiVersion"]
    found = custom(kind, api)
    if found is None:
        return _of_builtin(item, version)
    schema, validator = found
    wrong = [_sentence(item, error) for error in validator.iter_errors(item)]
    value = defaulted(schema, copy.deepcopy(item))
    return [
        *wrong,
        *(f"{_name(item)}: {text}" for text in (*repeated(schema, value), *broken_rules(schema, value))),
    ]


def _of_builtin(item: Mapping[str, Any], version: str) -> list[str]:
    validator = builtin(item["kind"], item["apiVersion"], version)
    if validator is None:
        return [f"{_name(item)}: Kubernetes {version} has no {item['kind']} in {item['apiVersion']}"]
    wrong = [_sentence(item, error) for error in validator.iter_errors(item)]
    lists = repeated(validator.schema, item, definitions(version))
    return [*wrong, *(f"{_name(item)}: {text}" for text in lists)]


def _name(item: Mapping[str, Any]) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def _sentence(item: Mapping[str, Any], error: Any) -> str:
    return f"{_name(item)}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


# --- built-in kinds


@cache
def _folder(version: str) -> Any:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"


@cache
def definitions(version: str) -> Node:
    return dict(json.loads((_folder(version) / "_definitions.json").read_text()))


@cache
def _registry(version: str) -> Registry[Any]:
    # kubernetes-validate gives its files these names in its own references.
    return Resource.from_contents(definitions(version)) @ Registry()


@cache
def builtin(kind: str, api: str, version: str) -> Draft202012Validator | None:
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    path = _folder(version) / f"{kind.lower()}-{group}.json"
    if not path.is_file():
        return None
    return Draft202012Validator(json.loads(path.read_text()), registry=_registry(version))


# --- custom kinds


@cache
def custom(kind: str, api: str) -> tuple[Node, Draft202012Validator] | None:
    path = CRDS / f"{kind}_{api.rpartition('/')[2]}.json.gz"
    if not path.exists():
        return None
    crd = json.loads(gzip.decompress(path.read_bytes()))
    if crd["apiVersion"] != api:
        return None
    return crd["schema"], Draft202012Validator(strict(crd["schema"]))


def strict(schema: Node, top: bool = True) -> dict[str, Any]:
    """As JSON schema, with fields that an API server would prune refused."""
    out = {
        key: value for key, value in schema.items() if not key.startswith("x-kubernetes") and key != "format"
    }
    fields = {name: strict(each, top=False) for name, each in schema.get("properties", {}).items()}
    if top:
        fields["metadata"] = {"type": "object"}
    if fields:
        out["properties"] = fields
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        out["additionalProperties"] = strict(extra, top=False)
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    if "items" in schema:
        out["items"] = strict(schema["items"], top=False)
    if schema.get("nullable") and "type" in schema:
        out["type"] = [schema["type"], "null"]
    return out


def defaulted(schema: Node, value: Any) -> Any:
    """`value` with the schema's defaults, as an API server completes it before it judges."""
    if isinstance(value, dict):
        for name, each in schema.get("properties", {}).items():
            if name not in value and "default" in each:
                value[name] = copy.deepcopy(each["default"])
        for name in value:
            if below := _below(schema, name):
                value[name] = defaulted(below, value[name])
    elif isinstance(value, list) and "items" in schema:
        return [defaulted(schema["items"], each) for each in value]
    return value


def _below(schema: Node, name: str) -> Node | None:
    fields = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    return fields.get(name) or (extra if isinstance(extra, Mapping) else None)


# --- what both have


def walk(
    schema: Node, value: Any, known: Node | None = None, path: str = ""
) -> Iterator[tuple[str, Node, Any]]:
    """Every part of `value` with the schema that is meant for it."""
    while "$ref" in schema:
        schema = (known or {})["$defs"][schema["$ref"].rpartition("/")[2]]
    yield path, schema, value
    if isinstance(value, Mapping):
        for name, each in value.items():
            if below := _below(schema, name):
                yield from walk(below, each, known, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield from walk(schema["items"], each, known, f"{path}[{index}]")


def repeated(schema: Node, value: Any, known: Node | None = None) -> Iterator[str]:
    """Keys that occur twice in a list that is merged by key."""
    for path, node, part in walk(schema, value, known):
        keys = merge_keys(node)
        if isinstance(part, list) and keys and all(isinstance(each, Mapping) for each in part):
            seen = Counter(tuple(each.get(key, _absent(key)) for key in keys) for each in part)
            yield from (f"{path} has {key} twice" for key, times in seen.items() if times > 1)


def merge_keys(node: Node) -> list[str]:
    return list(node.get("x-kubernetes-list-map-keys", ()))


def _absent(key: str) -> str | None:
    return "TCP" if key == "protocol" else None


@cache
def program(rule: str) -> Any:
    return cel.compile(rule)


def broken_rules(schema: Node, value: Any) -> Iterator[str]:
    """CEL rules that do not hold. Rules about changes have nothing to compare here."""
    for path, node, part in walk(schema, value):
        for rule in node.get("x-kubernetes-validations", ()):
            text = rule["rule"].strip()
            if "oldSelf" not in text and not program(text).execute({"self": escaped(part)}):
                yield f"{path}: {rule.get('message', text)}"


def escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {f"__{key}__" if key in RESERVED else key: escaped(each) for key, each in value.items()}
    return [escaped(each) for each in value] if isinstance(value, list) else value
