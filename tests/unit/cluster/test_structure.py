"""Which structural tags an engine may see. What the limits are measured on is in tests/engine."""

import json
import re
from typing import Any

import pytest

from cluster.engine.port import RequestRejected
from cluster.engine.structure import Written, check_structural_tag, parted, weigh


def tag(format: Any) -> str:
    return json.dumps({"type": "structural_tag", "format": format})


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": value, "max_whitespace_cnt": 2}


def nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"type": "array", "items": value}
    return value


ORDINARY = {
    "type": "object",
    "properties": {
        "not": {"type": "string", "maxLength": 90},  # a name, not a keyword
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,5}$"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None, 1]}, "minItems": 1, "maxItems": 9},
        "more": {"anyOf": [{"$ref": "#/$defs/more"}, {"type": "null"}]},
    },
    "required": ["not"],
    "$defs": {"more": {"type": "object", "properties": {"when": {"type": "string", "format": "date-time"}}}},
}


def test_ordinary_tags_pass_and_tell_their_schemas() -> None:
    free = {"type": "any_tokens", "exclude_tokens": [200_002]}
    elements = [{"type": "optional", "content": free}, {"type": "token", "token": 200_008}, schema(ORDINARY)]
    ordinary = tag({"type": "sequence", "elements": elements})
    assert check_structural_tag(ordinary, (200_002,)).schemas == [ORDINARY]
    assert check_structural_tag(tag(schema(True)), (1,)).schemas == [True]
    choice = {"type": "or", "elements": [{"type": "const_string", "value": word} for word in ("yes", "no")]}
    for plain in (tag(choice), tag({"type": "regex", "pattern": "[a-z]{1,64}"})):
        structure = check_structural_tag(plain, (1,))
        assert (structure.schemas, structure.text()) == ([], plain)


@pytest.mark.parametrize(
    ("bounds", "counted"),
    [({"maxLength": 9}, "{0,9}"), ({"minLength": 2}, "{2,}"), ({"minLength": 2, "maxLength": 9}, "{2,9}")],
)
def test_a_bounded_string_is_compiled_as_a_pattern_of_what_json_takes(bounds: Any, counted: str) -> None:
    given = schema({"type": "object", "properties": {"a": {"type": "string"} | bounds}})
    compiled = json.loads(check_structural_tag(tag(given), (1,)).text())
    string = compiled["format"]["json_schema"]["properties"]["a"]
    assert string == {"type": "string", "pattern": string["pattern"]}
    assert string["pattern"].endswith(counted + "$")
    for text, fits in (("ab", True), ("ü 5", True), ('a"', False), ("a\\", False), ("a\tb", False)):
        assert bool(re.fullmatch(string["pattern"], text)) is fits


@pytest.mark.parametrize(
    ("text", "named"),
    {
        "garbage": ("{", "not JSON"),
        "many brackets": ("[" * 100_000, "not JSON"),
        "no tag": ("{}", "of the form"),
        "no format": ('{"type": "structural_tag"}', "of the form"),
        "a number": ("1", "of the form"),
        "deep": (tag(schema(nested(40))), "deeper"),
        "many values": (tag(schema({"enum": list(range(6000))})), "values"),
        "long texts": (tag({"type": "const_string", "value": "x" * 70_000}), "texts"),
        "NUL": (tag({"type": "const_string", "value": "a\x00b"}), "NUL"),
        "half a pair": (tag(schema({"enum": ["\ud800"]})), "surrogate"),
        "half a pair as a key": (tag(schema({"properties": {"\udfff": True}})), "surrogate"),
        "unknown format": (tag({"type": "frobnicate"}), "format"),
        "ebnf": (tag({"type": "grammar", "grammar": 'root ::= root root | "a"'}), "format"),
        "repeat": (
            tag({"type": "repeat", "min": 1, "max": 10**9, "content": {"type": "any_text"}}),
            "format",
        ),
        "empty choice": (tag({"type": "or", "elements": []}), "format"),
        "stop id": (tag({"type": "token", "token": 7}), "stop id"),
        "not": (tag(schema({"properties": {"a": {"not": {"type": "string"}}}})), "keyword not"),
        "uniqueItems": (tag(schema({"items": [{"uniqueItems": True}]})), "keyword uniqueItems"),
        "foreign $ref": (tag(schema({"$ref": "http://example.org/schema"})), "$ref"),
        "long pattern": (tag({"type": "regex", "pattern": "a" * 600}), "pattern"),
        "nested repetition": (tag({"type": "regex", "pattern": "((a{1,3}){1,3}){1,3}"}), "repeats a group"),
        "nested stars": (tag({"type": "regex", "pattern": "([a-z]+)*[a-z]+"}), "repeats a group"),
        "many options": (tag({"type": "regex", "pattern": ".?" * 9}), "more than 4 of"),
        "many stars": (tag({"type": "regex", "pattern": ".*" * 5}), "more than 4 of"),
        "starred options": (tag({"type": "regex", "pattern": "(.?.?)*"}), "repeats a group"),
        "counted alternatives": (tag({"type": "regex", "pattern": "(a|ab|.){9}"}), "repeats a group"),
        "ranges beside stars": (tag({"type": "regex", "pattern": ".*.{1,64}"}), "beside another"),
        "long string": (tag(schema({"maxLength": 129})), "length is above 128"),
        "open object": (
            tag(schema({"properties": {f"p{n}": True for n in range(40)}, "additionalProperties": {}})),
            "twice",
        ),
        "heavy pattern": (tag(schema({"items": {"pattern": "[a-z]{1,2000}"}})), "repetitions"),
        "heavy name": (tag(schema({"patternProperties": {"a{9999}": True}})), "repetitions"),
        "many lengths": (tag(schema({"anyOf": [{"maxLength": 100 + n} for n in range(9)]})), "lengths"),
        "wide object": (tag(schema({"properties": {f"p{n}": True for n in range(70)}})), "optional"),
    }.values(),
)
def test_what_could_hurt_an_engine_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(RequestRejected, match=r"^structural_tag is invalid: [^\n]+$") as refusal:
        check_structural_tag(text, (7,))
    assert named in str(refusal.value)


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("", Written()),
        ("abc", Written(letters=3)),
        ("[a-z]{2,7}", Written(letters=7, ranged=7, repeats=1)),
        ("a{5}", Written(letters=5)),
        ("a{5,5}", Written(letters=5)),
        ("a{5,}", Written(letters=5, ranged=5, repeats=1)),
        (r"\{a{3}", Written(letters=4)),
        (r"[\]{9}]{2}", Written(letters=2)),
        ("(ab|c)+d", Written(letters=4, repeats=1, forks=1)),
        ("(ab|c){3}d", Written(letters=10, forks=1, nested=True)),
        ("((ab){3}c){2}", Written(letters=14)),
        ("(a?b){2}", Written(letters=4, repeats=1, nested=True)),
        ("(a?b)*", Written(letters=2, repeats=2, nested=True)),
        ("(ab+)?c*", Written(letters=3, repeats=3)),
        ("(a{2", Written(letters=3)),
        (")a)", Written(letters=3)),
    ],
)
def test_patterns_are_weighed_as_written_out(pattern: str, written: Written) -> None:
    assert weigh(pattern) == written


def test_the_output_that_a_tag_goes_on_after_travels_with_it_and_no_caller_can_send_it() -> None:
    plain = tag({"type": "const_string", "value": "yes"})
    structure = check_structural_tag(plain, (1,))
    assert parted(structure.text([5, 6])) == (plain, [5, 6])
    assert parted(structure.text()) == (plain, [])
    with pytest.raises(RequestRejected, match="continued"):
        check_structural_tag(structure.text([5, 6]), (1,))
