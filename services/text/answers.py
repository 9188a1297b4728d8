"""What an answer of a chat-template model may be made of, where the caller demands a format or calls.

A thought before it stays free.
"""

from collections.abc import Iterator, Sequence

from services.core.request import Choice, Conversation, Function
from services.text.calls import Syntax
from services.text.markup import Mark, Markup
from services.text.structure import (
    Rule,
    anything_but,
    content,
    offered,
    one_of,
    optional,
    sequence,
    several,
    some_but,
    token,
)

SPACE: Rule = {"type": "regex", "pattern": "[ \\n]{0,4}"}  # as models leave it between sections


def of(conversation: Conversation, markup: Markup, *, thinking: bool) -> Rule:
    """Perhaps a thought, then calls or the answer. `thinking`: the prompt ends within a thought."""
    return sequence(*_thought(markup, thinking), one_of([*_endings(conversation, markup)]))


def _thought(markup: Markup, thinking: bool) -> Iterator[Rule]:
    if not markup.thinks:
        return
    begin, end = markup.id(Mark.THINK), markup.id(Mark.THINK_END)
    marks = [id for id in markup.marks if id != begin]
    rest = (anything_but(marks), token(end), SPACE)
    yield sequence(*rest) if thinking else optional(sequence(token(begin), *rest))


def _endings(conversation: Conversation, markup: Markup) -> Iterator[Rule]:
    functions, format = offered(conversation), conversation.format
    required = conversation.choice is Choice.REQUIRED
    calls = None
    if functions and markup.syntax:
        calls = _calls(functions, markup.syntax, markup, one=required and len(functions) == 1)
        yield calls
    if format is not None and not required:
        yield content(format)
    elif not (required and calls):
        said = some_but([*markup.marks])
        yield sequence(said, optional(calls)) if calls else said


def _calls(functions: Sequence[Function], syntax: Syntax, markup: Markup, *, one: bool) -> Rule:
    call = one_of([_call(function, syntax, markup) for function in functions])
    calls = call if one else several(call, SPACE)
    if not syntax.first:
        return calls
    return sequence(token(markup.id(Mark.FIRST)), calls, token(markup.id(Mark.LAST)))


def _call(function: Function, syntax: Syntax, markup: Markup) -> Rule:
    first, *others = syntax.write(function)
    rules = [*first]
    for part in others:
        rules += [token(markup.id(Mark.SEPARATOR)), *part]
    return sequence(token(markup.id(Mark.CALL)), *rules, token(markup.id(Mark.CALL_END)))
