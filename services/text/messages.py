"""A conversation as chat templates take it: dictionaries. Its skeleton has the same shape and says nothing."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from services.core.errors import InvalidRequest, Violation
from services.core.request import Conversation, Function, Message, ToolCall, last_answer
from services.text.structure import offered

Clean = Callable[[str], str]  # applied to every string of functions and calls, which templates write as JSON


class Style(NamedTuple):
    """How a template wants the message of a call."""

    wordless: str | None  # the content, if there is none
    written: bool  # arguments as JSON text and not as an object


STYLES = [Style(*pair) for pair in product((None, ""), (False, True))]
NOTHING = {"type": "object", "properties": {}}


def rendered(conversation: Conversation, *, thinks: bool) -> Conversation:
    """Without what no template gets: functions that may not be called, and reasoning but in an open tool loop.

    `thinks`: the template knows what to do with reasoning there.
    """
    messages = conversation.messages
    answered = last_answer(messages)
    kept = tuple(
        replace(m, reasoning="") if m.reasoning and not (thinks and i > answered) else m
        for i, m in enumerate(messages)
    )
    return Conversation(kept, offered(conversation))


def skeleton(conversation: Conversation) -> Conversation:
    """For conversations of one skeleton the template writes the same control tokens."""
    names: dict[str, str] = {}
    messages = tuple(_bare(m, names) for m in conversation.messages)
    return Conversation(messages, tuple(Function("x", "x") for _ in conversation.functions))


def _bare(message: Message, names: dict[str, str]) -> Message:
    if not (message.calls or message.call_id or message.reasoning):
        return Message(message.role, "x")
    calls = tuple(
        ToolCall(names.setdefault(c.id, f"x{len(names)}"), "x", '{"x": "x"}') for c in message.calls
    )
    text = "x" if message.text or not calls else ""
    call_id = _named(message.call_id, names) if message.call_id else ""
    return Message(message.role, text, "x" if message.reasoning else "", calls, call_id)


def with_words(conversation: Conversation, words: Sequence[str]) -> Conversation:
    """The conversation with its texts and reasonings replaced, in the order in which `words_of` gives them."""
    pairs = zip(conversation.messages, words[::2], words[1::2], strict=True)
    return replace(conversation, messages=tuple(replace(m, text=t, reasoning=r) for m, t, r in pairs))


def words_of(conversation: Conversation) -> list[str]:
    return [words for m in conversation.messages for words in (m.text, m.reasoning)]


def as_dictionaries(messages: Sequence[Message], clean: Clean, style: Style) -> Iterator[dict[str, object]]:
    names: dict[str, str] = {}
    for message in messages:
        value: dict[str, object] = {"role": message.role.value, "content": message.text}
        if message.calls and not message.text:
            value["content"] = style.wordless
        if message.reasoning:
            value["reasoning_content"] = message.reasoning
        if message.calls:
            value["tool_calls"] = [_call(call, clean, style.written) for call in message.calls]
            names |= {call.id: call.name for call in message.calls}
        if message.call_id:
            value["tool_call_id"] = clean(message.call_id)
            value["name"] = clean(_named(message.call_id, names))
        yield value


def _named(call_id: str, names: Mapping[str, str]) -> str:
    if call_id not in names:
        raise InvalidRequest(Violation("messages", "a tool_call_id is that of no call before it"))
    return names[call_id]


def _call(call: ToolCall, clean: Clean, written: bool) -> dict[str, object]:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(Violation("messages", "a call's arguments are not JSON")) from error
    function = {
        "name": clean(call.name),
        "arguments": clean(call.arguments) if written else cleaned(arguments, clean),
    }
    return {"id": clean(call.id), "type": "function", "function": function}


def as_tools(functions: Sequence[Function], clean: Clean) -> list[dict[str, object]] | None:
    """None where there are none: some templates ask whether the list is defined, others whether it is empty."""
    return [{"type": "function", "function": cleaned(_described(f), clean)} for f in functions] or None


def _described(function: Function) -> dict[str, object]:
    return {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters or NOTHING,
    }


def cleaned(value: Any, clean: Clean) -> Any:
    """The JSON value with every string in it cleaned, keys too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(key): cleaned(item, clean) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item, clean) for item in value]
    return value
