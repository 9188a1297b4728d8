"""values.schema.json: what a values file may say, strictly. Unknown keys are refused everywhere but in declared maps.

Of a leaf, in this order: the fragment in its comment, the code's own settings, Kubernetes' shapes, the default's type.
"""

import json
from typing import Any

from jsonschema import Draft202012Validator

from deploy.chart import kinds, settings
from deploy.chart.comments import CommentError, Value, read
from deploy.chart.kinds import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What Kubernetes holds counts and seconds in.
INT32 = 2**31 - 1
# The section that documents an entry of `models`.
ENTRY = "modelDefaults"


def document() -> str:
    return json.dumps(build(read()), indent=1, ensure_ascii=False) + "\n"


def build(root: Value) -> Schema:
    """The schema of the file whose documented values are `root`. Raises CommentError."""
    gateway, definitions = settings.gateway()
    schema = _section(root)
    schema["properties"]["gateway"]["properties"]["settings"] |= gateway
    # Helm hands a chart's `global` to its parts; without parts it is empty.
    schema["properties"]["global"] = {"type": "object"}
    return {"$schema": DIALECT, "title": "headrace", **schema, "$defs": definitions}


def _section(value: Value) -> Schema:
    fields = {child.name: _section(child) if child.children else leaf(child) for child in value.children}
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": fields}
    if value.text:
        schema["description"] = value.text
    return schema | value.schema


def leaf(value: Value) -> Schema:
    schema = _typed(value) | value.schema
    if not schema and value.default is None:
        raise CommentError(f"values.yaml: {value.dotted}: null has no type: say one in `# @schema`")
    if schema.get("type") == "integer":
        schema = {"maximum": INT32} | schema
    return ({"description": value.text} if value.text else {}) | _nullable(schema, value.default)


def _typed(value: Value) -> Schema:
    if "type" in value.schema or "anyOf" in value.schema or "$ref" in value.schema or "enum" in value.schema:
        return {}
    if (
        value.path[0] == ENTRY
        and (known := settings.of_model(value.path[1:]))
        and allows(known, value.default)
    ):
        return known
    return kinds.of(value) or of_default(value.default)


def allows(schema: Schema, default: Any) -> bool:
    """Whether a default is of the code's own values: a 0 that means "none" is not."""
    return bool(Draft202012Validator(schema).is_valid(default))


def of_default(default: Any) -> Schema:
    """The type that a default shows. Numbers are not negative unless a comment says so."""
    match default:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer", "minimum": 0}
        case float():
            return {"type": "number", "minimum": 0}
        case str():
            # On one line: more would be read as more YAML where a template prints it.
            return {"type": "string", "pattern": r"^[^\r\n]*$"}
        case list():
            return {"type": "array", "items": of_default(default[0]) if default else {}}
        case dict():
            return dict(kinds.FREE)
    return {}


def _nullable(schema: Schema, default: Any) -> Schema:
    if default is not None or "anyOf" in schema or "type" not in schema:
        return schema
    kind = schema["type"]
    return schema | {"type": [*(kind if isinstance(kind, list) else [kind]), "null"]}
