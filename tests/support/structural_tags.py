"""Structural tags for tests of the engine, written out by hand: the gateway's own are tested apart."""

import json
from typing import Any

RETURN, CONSTRAIN, CHANNEL, START, END, MESSAGE, CALL = 200002, 200003, 200005, 200006, 200007, 200008, 200012
SPECIALS = list(range(199_998, 200_019))
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}


def token(id: int) -> dict[str, Any]:
    return {"type": "token", "token": id}


def const(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}


def sequence(*elements: Any) -> dict[str, Any]:
    return {"type": "sequence", "elements": elements}


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": value, "max_whitespace_cnt": 1}


def tag(format: Any) -> str:
    return json.dumps({"type": "structural_tag", "format": format})


FREE = {"type": "any_tokens", "exclude_tokens": SPECIALS, "max_tokens": 40}
ANALYSIS = sequence(
    token(CHANNEL), const("analysis"), token(MESSAGE), FREE, token(END), token(START), const("assistant")
)
THOUGHT = {"type": "optional", "content": ANALYSIS}
FINAL = sequence(
    THOUGHT, token(CHANNEL), const("final "), token(CONSTRAIN), const("json"), token(MESSAGE), schema(WEATHER)
)


def call(name: str, arguments: Any) -> dict[str, Any]:
    header = const(f"commentary to=functions.{name} ")
    return sequence(header, token(CONSTRAIN), const("json"), token(MESSAGE), schema(arguments))


CALLS = sequence(
    THOUGHT,
    token(CHANNEL),
    {"type": "or", "elements": [call("weather", WEATHER), call("now", {"enum": [{}]})]},
)
