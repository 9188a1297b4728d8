"""How model families write calls of functions: one row each, chosen by what the vocabulary and the template contain."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.core.request import Function
from services.text.structure import Rule, arguments, text


class Call(NamedTuple):
    """`arguments` is compact JSON text."""

    name: str
    arguments: str


class Unreadable(ValueError):
    """The text of a call is not what its family writes."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """A call stands between `begin` and `end`; several of them between `first` and `last`, where a family has
    those; `parts` are what `separator` divides. All five are added tokens."""

    begin: str
    end: str
    read: Callable[[Sequence[str]], Call]
    write: Callable[[Function], list[list[Rule]]]  # the parts of a call as rules
    first: str = ""
    last: str = ""
    separator: str = ""
    sign: str = ""  # what only a template of this family contains
    foreign: str = "\0"  # what it does not contain

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.begin, self.end, self.first, self.last, self.separator)))


def syntax_of(template: str, added: Collection[str]) -> Syntax | None:
    """None: the checkpoint takes no tools, or in a syntax that is not known here."""
    if "tools" not in template:
        return None
    fitting = (
        row
        for row in SYNTAXES
        if row.sign in template and row.foreign not in template and all(mark in added for mark in row.marks)
    )
    return next(fitting, None)


def _read_hermes(parts: Sequence[str]) -> Call:
    value = _object(parts[0])
    name = value.get("name")
    given = value.get("arguments", {})
    if not isinstance(name, str):
        raise Unreadable
    return Call(name, _compact(_object(given) if isinstance(given, str) else given))


def _write_hermes(function: Function) -> list[list[Rule]]:
    name = json.dumps(function.name, ensure_ascii=False)
    return [[text(f'\n{{"name": {name}, "arguments": '), arguments(function), text("}\n")]]


def _read_deepseek(parts: Sequence[str]) -> Call:
    """Both of its forms, as models trained on one write the other."""
    if len(parts) != 2:
        raise Unreadable
    head, body = parts[0].strip(), parts[1].strip()
    if FENCE in body:
        head, _, body = body.partition(FENCE)
        body = body.strip().removesuffix("```")
    return Call(head.strip(), _compact(_object(body)))


def _write_fenced(function: Function) -> list[list[Rule]]:
    return [[text("function")], [text(f"{function.name}\n{FENCE}\n"), arguments(function), text("\n```")]]


def _write_bare(function: Function) -> list[list[Rule]]:
    return [[text(function.name)], [arguments(function)]]


def _object(value: str) -> dict[str, object]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unreadable from error
    if not isinstance(found, dict):
        raise Unreadable
    return found


def _compact(value: object) -> str:
    if not isinstance(value, dict):
        raise Unreadable
    try:
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Unreadable from error  # a number that JSON has not
    return compact if compact.isascii() or _encodes(compact) else json.dumps(value, separators=(",", ":"))


def _encodes(value: str) -> bool:
    """No half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


FENCE = "```json"
DEEPSEEK = {
    "begin": "<｜tool▁call▁begin｜>",
    "end": "<｜tool▁call▁end｜>",
    "first": "<｜tool▁calls▁begin｜>",
    "last": "<｜tool▁calls▁end｜>",
    "separator": "<｜tool▁sep｜>",
}
SYNTAXES = (
    # Qwen 2.5 and 3, Hermes. Qwen's coders write XML between the same marks.
    Syntax(
        "<tool_call>", "</tool_call>", _read_hermes, _write_hermes, sign="arguments", foreign="<function="
    ),
    # DeepSeek V3 and R1-0528
    Syntax(**DEEPSEEK, read=_read_deepseek, write=_write_fenced, sign=FENCE),
    # DeepSeek V3.1
    Syntax(**DEEPSEEK, read=_read_deepseek, write=_write_bare),
)
