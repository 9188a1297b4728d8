"""Structural tags: the JSON by which the engine's grammar (xgrammar) holds sampled tokens to a format."""

import json
from typing import Any

from services.core.request import Format, Function, JsonSchema, Regex, Schema

Rule = dict[str, Any]
MOST_WHITE_SPACE = 2  # between two tokens of JSON; models that may go on with it do so to their last token


def whole(format: Rule) -> str:
    return json.dumps({"type": "structural_tag", "format": format}, ensure_ascii=False, separators=(",", ":"))


def content(format: Format) -> Rule:
    """What an answer in this format is made of."""
    if isinstance(format, JsonSchema):
        return _json(format.schema)
    if isinstance(format, Regex):
        return {"type": "regex", "pattern": format.pattern}
    return one_of([text(option) for option in format.options])


def arguments(function: Function) -> Rule:
    """Of a strict function its schema, of another one any object."""
    return _json(function.parameters if function.strict and function.parameters else {"type": "object"})


def _json(schema: Schema) -> Rule:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": MOST_WHITE_SPACE}


def text(value: str) -> Rule:
    return {"type": "const_string", "value": value}


def tag(begin: str, content: Rule, end: str | list[str]) -> Rule:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def one_of(rules: list[Rule]) -> Rule:
    return rules[0] if len(rules) == 1 else {"type": "or", "elements": rules}


def sequence(*rules: Rule) -> Rule:
    return {"type": "sequence", "elements": list(rules)}


def optional(rule: Rule) -> Rule:
    return {"type": "optional", "content": rule}


def several(rule: Rule, between: Rule) -> Rule:
    """One or more of them."""
    return sequence(rule, {"type": "star", "content": sequence(between, rule)})


def token(id: int) -> Rule:
    """The added token itself: its text, spelled by other tokens, does not count."""
    return {"type": "token", "token": id}


def tokens(besides: list[int]) -> Rule:
    """Any number of any but these."""
    return {"type": "any_tokens", "exclude_tokens": besides}


def some_tokens(besides: list[int]) -> Rule:
    return sequence({"type": "exclude_token", "exclude_tokens": besides}, tokens(besides))


ANYTHING: Rule = {"type": "any_text"}
SPACE: Rule = {"type": "regex", "pattern": "[ \\n]{0,4}"}  # as models leave it between sections
