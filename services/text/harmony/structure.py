"""What a harmony answer may be made of, where the caller demands a format or calls. Reasoning stays free."""

from services.core.request import Choice, Conversation, Function, JsonSchema
from services.text.harmony.header import NAMESPACE
from services.text.harmony.vocabulary import CHANNEL, CONSTRAIN, END, MESSAGE, NAMED_CONTROLS, START
from services.text.structure import (
    Rule,
    anything_but,
    arguments,
    content,
    offered,
    one_of,
    optional,
    sequence,
    some_but,
    text,
    token,
)

ANYTHING = anything_but(NAMED_CONTROLS)
JSON = (text(" "), token(CONSTRAIN), text("json"))


def of(conversation: Conversation) -> Rule:
    """Reasoning, perhaps a preamble to a call, then a call or the answer."""
    functions = offered(conversation)
    endings = [_call(function) for function in functions]
    if conversation.choice is not Choice.REQUIRED:
        endings.append(_final(conversation))
    before = [_message("analysis"), *([_message("commentary")] if functions else [])]
    return sequence(*before, token(CHANNEL), one_of(endings))


def _message(channel: str) -> Rule:
    """One such message, or none, before the one that counts."""
    begin = (token(CHANNEL), text(channel), token(MESSAGE))
    return optional(sequence(*begin, ANYTHING, token(END), token(START), text("assistant")))


def _final(conversation: Conversation) -> Rule:
    format = conversation.format
    if format is None:
        return sequence(text("final"), token(MESSAGE), some_but(NAMED_CONTROLS))
    type = JSON if isinstance(format, JsonSchema) else ()
    return sequence(text("final"), *type, token(MESSAGE), content(format))


def _call(function: Function) -> Rule:
    header = text(f"commentary to={NAMESPACE}{function.name}")
    return sequence(header, *JSON, token(MESSAGE), arguments(function))
