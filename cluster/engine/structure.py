"""Structural tags checked before a grammar compiler sees them.

A grammar that is short to write can be endless to compile, and nothing can interrupt the compiler. So a tag
is bounded by its form: known formats, and depth, size and weight below the limits here, which were measured.
A keyword that xgrammar would ignore is refused too: the output would not follow the schema.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

from cluster.engine.port import RequestRejected

MAX_DEPTH = 32  # objects and arrays within each other, the tag's own included
MAX_VALUES = 5000  # numbers, strings, objects, arrays and keys
MAX_TEXT = 32 * 1024  # letters of all texts and keys together
MAX_PATTERN = 512  # letters of a regular expression
MAX_WEIGHT = 128  # letters that patterns spell, counted repetitions written out
MAX_REPEATS = 4  # of *, +, ? and {m,n} in a pattern
MAX_RANGED = 16  # letters under {m,n} in a pattern that has another repetition too
MAX_LENGTH = 128  # characters of a string that has a length
MAX_LENGTHS = 256  # of all of them
MAX_OPTIONAL = 64  # properties that are not required; all those of an open object count, and twice

CONTINUED = "continued"

FORMATS = (
    *("sequence", "or", "optional", "star", "const_string", "token", "any_tokens", "exclude_token"),
    *("json_schema", "regex"),
)

IGNORED = {
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "multipleOf"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "$dynamicRef"),
}
SCHEMA = ("items", "additionalItems", "additionalProperties", "unevaluatedProperties", "propertyNames")
SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")


class Structure(NamedTuple):
    """A tag that an engine may compile, and in it the JSON schemas and those of strings with a length."""

    tag: dict[str, Any]
    schemas: list[Any]
    bounded: list[dict[str, Any]]

    def text(self, continued: Sequence[int] = ()) -> str:
        """The tag as it is compiled: for a bounded length xgrammar takes raw control characters, which no JSON
        reader takes, so the length becomes a pattern. That compiles in less than half the time as well.

        The ids that its output begins with travel in it to where it is compiled; see `parted`."""
        for schema in self.bounded:
            low, high = schema.pop("minLength", 0), schema.pop("maxLength", "")
            schema["pattern"] = f'^[^"\\\\\\x00-\\x1f]{{{low},{high}}}$'
        return json.dumps({**self.tag, CONTINUED: list(continued)} if continued else self.tag)


def parted(text: str) -> tuple[str, list[int]]:
    """The tag alone, and the ids that its output begins with."""
    tag = json.loads(text)
    continued = tag.pop(CONTINUED, [])
    return (json.dumps(tag), continued) if continued else (text, [])


def check_structural_tag(text: str, stop_ids: Collection[int]) -> Structure:
    """What a tag asks for, if an engine may compile it.

    Raises RequestRejected, with what does not hold.
    """
    try:
        tag = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("it is not JSON") from error
    check_size(tag)
    if not isinstance(tag, dict) or tag.get("type") != "structural_tag" or "format" not in tag:
        raise invalid("it is not of the form {type: structural_tag, format: ...}")
    if CONTINUED in tag:
        raise invalid(f"{CONTINUED} is a field of the request")
    walk = Walk(stop_ids)
    walk.format(tag["format"])
    return Structure(tag, walk.schemas, walk.bounded)


def invalid(reason: str) -> RequestRejected:
    return RequestRejected(f"structural_tag is invalid: {reason}")


def check_size(tag: Any) -> None:
    values = letters = 0
    level = [tag]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        values += len(level)
        if values > MAX_VALUES:
            raise invalid(f"it has more than {MAX_VALUES} values")
        letters += sum(len(check_text(value)) for value in level if isinstance(value, str))
        if letters > MAX_TEXT:
            raise invalid(f"its texts are longer than {MAX_TEXT} characters")
        level = [part for value in level for part in parts(value)]
    raise invalid(f"it is nested deeper than {MAX_DEPTH}")


def parts(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value
        yield from value.values()


def check_text(text: str) -> str:
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise invalid("a text holds NUL or half of a surrogate pair")
    return text


class Walk:
    """What is seen on the way through a tag, and adds up."""

    def __init__(self, stop_ids: Collection[int]) -> None:
        self._stop_ids = stop_ids
        self._lengths = 0
        self._optional = 0
        self._weight = 0
        self.schemas: list[Any] = []
        self.bounded: list[dict[str, Any]] = []

    def format(self, format: Any) -> None:
        match format:
            case {"type": "sequence" | "or", "elements": [_, *_] as elements}:
                for element in elements:
                    self.format(element)
            case {"type": "optional" | "star", "content": content}:
                self.format(content)
            case {"type": "const_string", "value": str()}:
                pass
            case {"type": "token", "token": int(token)}:
                self._token(token)
            case {"type": "any_tokens" | "exclude_token"}:
                pass
            case {"type": "regex", "pattern": str(pattern)}:
                self._pattern(pattern)
            case {"type": "json_schema", "json_schema": dict() | bool() as schema}:
                self.schemas.append(schema)
                self._schema(schema)
            case _:
                raise invalid(f"a format is none of {', '.join(FORMATS)}, or lacks its fields")

    def _token(self, token: int) -> None:
        if token in self._stop_ids:
            # The compiler allows stop ids at the end of the tag only, so the turn could not go on.
            raise invalid(f"token {token} is a stop id; stop ids follow the tag by themselves")

    def _schema(self, schema: Any) -> None:
        if not isinstance(schema, dict):
            return
        if ignored := IGNORED & schema.keys():
            raise invalid(f"the keyword {min(ignored)} of a JSON schema is not supported")
        if not str(schema.get("$ref", "#")).startswith("#"):
            raise invalid("a $ref does not stay in its schema")
        self._string(schema)
        self._object(schema)
        for key in SCHEMA:
            value = schema.get(key)
            for part in value if isinstance(value, list) else [value]:
                self._schema(part)
        for key in (*SCHEMAS, *NAMED_SCHEMAS):
            for part in listed(schema.get(key)):
                self._schema(part)

    def _string(self, schema: dict[str, Any]) -> None:
        if "pattern" in schema:
            self._pattern(str(schema["pattern"]))
        for pattern in named(schema.get("patternProperties")):
            self._pattern(pattern)
        lengths = [value for key in ("minLength", "maxLength") if isinstance(value := schema.get(key), int)]
        if lengths:
            self.bounded.append(schema)
        longest = max(lengths, default=0)
        if longest > MAX_LENGTH:
            raise invalid(f"a string's length is above {MAX_LENGTH}")
        self._lengths += longest
        if self._lengths > MAX_LENGTHS:
            raise invalid(f"the lengths of its strings add up to more than {MAX_LENGTHS}")

    def _object(self, schema: dict[str, Any]) -> None:
        names, required = named(schema.get("properties")), schema.get("required")
        if schema.get("additionalProperties", False) is False and "patternProperties" not in schema:
            self._optional += len(set(names) - set(required if isinstance(required, list) else ()))
        else:
            self._optional += 2 * len(names)
        if self._optional > MAX_OPTIONAL:
            raise invalid(
                f"more than {MAX_OPTIONAL} properties are optional; those of an object with additionalProperties "
                "count twice, required ones too"
            )

    def _pattern(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise invalid(f"a pattern is longer than {MAX_PATTERN} characters")
        written = weigh(pattern)
        if written.nested:
            raise invalid("a pattern repeats a group that holds a repetition, or counts one that holds |")
        if written.repeats > MAX_REPEATS:
            raise invalid(f"a pattern has more than {MAX_REPEATS} of *, +, ? and {{m,n}}")
        if written.repeats > 1 and written.ranged > MAX_RANGED:
            raise invalid(
                f"a pattern spells more than {MAX_RANGED} letters under {{m,n}} beside another repetition"
            )
        self._weight += written.letters
        if self._weight > MAX_WEIGHT:
            raise invalid(f"patterns with their repetitions written out are longer than {MAX_WEIGHT}")


# An escape, a class, a counted repetition, or any other single letter.
ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<low>\d+)(?P<comma>,)?(?P<high>\d*)\}|.", re.DOTALL)


class Written(NamedTuple):
    """A pattern or a part of it: letters with counts written out, those under {m,n}, repetitions, alternatives."""

    letters: int = 0
    ranged: int = 0
    repeats: int = 0
    forks: int = 0
    nested: bool = False

    def joined(self, other: "Written") -> "Written":
        return Written(
            self.letters + other.letters,
            self.ranged + other.ranged,
            self.repeats + other.repeats,
            self.forks + other.forks,
            self.nested or other.nested,
        )

    def starred(self) -> "Written":
        return self._replace(repeats=self.repeats + 1, nested=self.nested or self.repeats > 0)

    def counted(self, low: str, comma: str | None, high: str) -> "Written":
        letters = self.letters * max(1, int(high or low))
        written = self._replace(letters=letters, nested=self.nested or self.repeats + self.forks > 0)
        if not comma or low == high:
            return written
        return written._replace(ranged=letters, repeats=self.repeats + 1)


def weigh(pattern: str) -> Written:
    """What a pattern comes to. A pattern that is none is left to the compiler to refuse."""
    groups, last = [Written()], Written()
    for atom in ATOM.finditer(pattern):
        match atom.group():
            case "(":
                groups[-1] = groups[-1].joined(last)
                groups.append(Written())
                last = Written()
            case ")" if len(groups) > 1:
                last = groups.pop().joined(last)
            case "*" | "+":
                last = last.starred()
            case "?":
                last = last._replace(repeats=last.repeats + 1)
            case "|":
                groups[-1] = groups[-1].joined(Written(forks=1))
            case _ if atom["low"]:
                last = last.counted(atom["low"], atom["comma"], atom["high"])
            case _:
                groups[-1] = groups[-1].joined(last)
                last = Written(letters=1)
    return reduce(Written.joined, (*groups, last))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []


def named(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []
