"""Structural tags: the JSON by which the engine's grammar (xgrammar) holds sampled tokens to a format.

Markers are token rules: text rules are spelled by ordinary tokens only. The stop ids of the order may come
where a tag can end and nowhere else, so no tag contains one.
"""

import json
from collections.abc import Sequence
from typing import Any

from services.core.request import Choice, Conversation, Format, Function, JsonSchema, Regex

Rule = dict[str, Any]

WHITE_SPACE = 2  # characters between two tokens of JSON at most; unbounded, a model may write nothing else


def offered(conversation: Conversation) -> tuple[Function, ...]:
    """The functions that may be called."""
    return () if conversation.choice is Choice.NONE else conversation.functions


def is_demanded(conversation: Conversation) -> bool:
    """Whether the answer is not left free."""
    strict = any(function.strict for function in offered(conversation))
    return conversation.format is not None or conversation.choice is Choice.REQUIRED or strict


def whole(rule: Rule) -> str:
    return json.dumps({"type": "structural_tag", "format": rule}, ensure_ascii=False, separators=(",", ":"))


def content(format: Format) -> Rule:
    """What an answer in this format is made of."""
    if isinstance(format, JsonSchema):
        return conforming(format.schema)
    if isinstance(format, Regex):
        return {"type": "regex", "pattern": format.pattern}
    return one_of([text(option) for option in format.options])


def arguments(function: Function) -> Rule:
    """Of a strict function its schema, of another one any object."""
    schema = function.parameters if function.strict and function.parameters else {"type": "object"}
    return conforming(schema)


def conforming(schema: Any) -> Rule:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": WHITE_SPACE}


def text(value: str) -> Rule:
    return {"type": "const_string", "value": value}


def token(id: int) -> Rule:
    return {"type": "token", "token": id}


def anything_but(ids: Sequence[int]) -> Rule:
    return {"type": "any_tokens", "exclude_tokens": list(ids)}


def some_but(ids: Sequence[int]) -> Rule:
    """At least one token, and none of these."""
    return sequence({"type": "exclude_token", "exclude_tokens": list(ids)}, anything_but(ids))


def several(rule: Rule, between: Rule) -> Rule:
    """One or more of them."""
    return sequence(rule, {"type": "star", "content": sequence(between, rule)})


def one_of(rules: list[Rule]) -> Rule:
    return rules[0] if len(rules) == 1 else {"type": "or", "elements": rules}


def sequence(*rules: Rule) -> Rule:
    return {"type": "sequence", "elements": list(rules)}


def optional(rule: Rule) -> Rule:
    return {"type": "optional", "content": rule}
