"""JSON Schemas from callers: read, bounded, and refused where the engine's grammar would not hold to them."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from services.core.request import Schema

# What a replica's grammar compiler is given at most, less what the gateway puts around a schema.
MAX_BYTES = 32 << 10
MAX_DEPTH = 24  # of nested JSON values
MAX_VALUES = 4096  # of JSON values and keys
MAX_LENGTH = 128  # characters of a string that has a bound: the grammar unrolls it
MAX_COUNT = 1024  # of items and properties

BOUNDS = dict.fromkeys(("minLength", "maxLength"), MAX_LENGTH) | dict.fromkeys(
    ("minItems", "maxItems", "minProperties", "maxProperties"), MAX_COUNT
)
# The engine's grammar takes these and does not follow them, so an answer would break the schema in silence.
UNENFORCED = (
    "multipleOf",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "not",
    "if",
    "then",
    "else",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "$dynamicRef",
)
# Where the metaschema demands a schema, a list of them, or schemas by names that are the caller's.
ONE = ("items", "additionalProperties", "unevaluatedProperties", "propertyNames")
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "patternProperties", "$defs")


class BadSchema(ValueError):
    """The message says what is wrong and what would be right; it quotes keywords, never values."""


@lru_cache(256)  # callers send the same schema with every request
def read_schema(text: str) -> Schema:
    """Raises BadSchema. The value is shared: nobody changes it."""
    if len(text.encode()) > MAX_BYTES:
        raise BadSchema(f"at most {MAX_BYTES} bytes; it has {len(text.encode())}")
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise BadSchema(f"nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise BadSchema("must be JSON") from error
    if not isinstance(schema, dict):
        raise BadSchema("must be a JSON object")
    check_bounds(schema)
    try:
        json.dumps(schema, ensure_ascii=False).encode()
        Draft202012Validator.check_schema(schema)
    except UnicodeEncodeError as error:
        raise BadSchema("holds half of a surrogate pair") from error
    except SchemaError as error:
        raise BadSchema(f"is no JSON Schema: {_place(error)}") from error
    except (re.error, OverflowError, RecursionError) as error:
        raise BadSchema("holds a pattern that is no regular expression") from error
    check_keywords(schema)
    return schema


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _place(error: SchemaError) -> str:
    at = "/".join(str(part) for part in error.absolute_path)
    return f"{error.validator} does not hold at {at or 'its root'}"[:200]


def check_bounds(schema: Any) -> None:
    """Depth and number of values, before anything walks it recursively. Raises BadSchema."""
    level, values = [schema], 0
    for _ in range(MAX_DEPTH):
        values += len(level)
        if values > MAX_VALUES:
            raise BadSchema(f"more than {MAX_VALUES} JSON values and keys")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise BadSchema(f"nested more than {MAX_DEPTH} deep")


def check_keywords(schema: Any) -> None:
    """Raises BadSchema for a keyword that would not be followed, or a bound that a grammar cannot have."""
    for node in schemas(schema):
        for name in UNENFORCED:
            if name in node:
                raise BadSchema(f"{name} is not supported")
        for name, most in BOUNDS.items():
            if node.get(name, 0) > most:
                raise BadSchema(f"{name} is at most {most}")
        _check_combinations(node)


def _check_combinations(node: dict[str, Any]) -> None:
    if len(node.get("allOf", ())) > 1:
        raise BadSchema("allOf takes one schema")
    if ("pattern" in node or "format" in node) and ("minLength" in node or "maxLength" in node):
        raise BadSchema("pattern or format cannot stand beside minLength or maxLength")
    if "patternProperties" in node and ("properties" in node or len(node["patternProperties"]) > 1):
        raise BadSchema("patternProperties takes one pattern, and no properties beside it")
    if not str(node.get("$ref", "#")).startswith("#"):
        raise BadSchema("$ref points into the schema itself: #/$defs/...")


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every subschema that the metaschema has checked."""
    if not isinstance(node, dict):
        return
    yield node
    below = [node.get(key) for key in ONE]
    below += [child for key in LISTED for child in node.get(key, ())]
    below += [child for key in NAMED for child in node.get(key, {}).values()]
    for child in below:
        yield from schemas(child)


def values(schema: Any) -> int:
    """JSON values and keys in it: what it costs to check and to compile."""
    return 1 + sum(map(values, _children(schema)))


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value
