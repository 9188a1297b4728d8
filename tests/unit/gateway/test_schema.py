"""Schemas of callers: those that the engine's grammar follows pass, the others are refused by keyword."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.schema import MAX_DEPTH, MAX_VALUES, BadSchema, read_schema

GOOD: dict[str, Any] = {
    "empty": {},
    "nested": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}},
    "a property named like a keyword": {"type": "object", "properties": {"not": {"type": "string"}}},
    "a value named like a keyword": {"enum": [{"multipleOf": 2}]},
    "own definitions": {"$defs": {"n": {"type": "string"}}, "$ref": "#/$defs/n"},
    "recursion": {"type": "object", "properties": {"next": {"$ref": "#"}}},
    "bounded": {"type": "array", "minItems": 1, "maxItems": 1024},
}
GOOD |= {
    "unknown keywords, whatever is in them": {"x": {"minItems": "3", "allOf": 5, "patternProperties": 5}},
}
BAD: dict[str, tuple[Any, str]] = {
    "not": ({"not": {}}, "not is not supported"),
    "below a definition": ({"$defs": {"a": {"uniqueItems": True}}}, "uniqueItems"),
    "below anyOf": ({"anyOf": [{"type": "string"}, {"contains": {}}]}, "contains"),
    "allOf of two": ({"allOf": [{}, {}]}, "allOf"),
    "pattern with a length": ({"type": "string", "pattern": "a", "maxLength": 2}, "pattern"),
    "format with a length": ({"type": "string", "format": "date", "minLength": 2}, "format"),
    "patterns beside properties": (
        {"patternProperties": {"a": {}}, "properties": {"b": {}}},
        "patternProperties",
    ),
    "a bound too large": ({"type": "string", "maxLength": 129}, "maxLength is at most 128"),
    "half of a surrogate pair": ({"const": "\ud800"}, "surrogate"),
    "a quantifier beyond all numbers": ({"pattern": "a{99999999999999999999}"}, "regular expression"),
    "a pattern deeper than a parser": ({"pattern": "(" * 5000}, "regular expression"),
    "a bound that is no number": ({"minItems": "3"}, "minItems|type"),
    "a type that is none": ({"type": "object", "properties": {"a": {"type": 5}}}, "properties/a/type"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_schema_that_can_be_followed_is_read_in_its_order(name: str) -> None:
    text = json.dumps(GOOD[name])
    assert json.dumps(read_schema(text)) == text


@pytest.mark.parametrize("name", BAD)
def test_a_schema_that_would_not_be_followed_is_refused(name: str) -> None:
    schema, reason = BAD[name]
    with pytest.raises(BadSchema, match=reason):
        read_schema(json.dumps(schema))


def test_bounds_hold_at_their_edges() -> None:
    def deep(levels: int) -> str:
        return '{"items":' * (levels - 1) + "{}" + "}" * (levels - 1)

    read_schema(deep(MAX_DEPTH))
    with pytest.raises(BadSchema, match="deep"):
        read_schema(deep(MAX_DEPTH + 1))
    wide = [*range(MAX_VALUES - 3)]  # beside the object, its key and the list
    read_schema(json.dumps({"enum": wide}))
    with pytest.raises(BadSchema, match="values"):
        read_schema(json.dumps({"enum": [*wide, -1]}))


WEIRD = st.one_of(
    st.text(max_size=5), st.sampled_from(["\ud800", "a{9999999999999}", "(" * 3000, "a{2,1}", "[", "#/x"])
)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), WEIRD),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "items", "$ref", "allOf", "minItems", "pattern", "enum"]
                ),
                inner,
                max_size=3,
            ),
        ),
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        assert read_schema(json.dumps(value)) == value
    except BadSchema as error:
        assert str(error)
