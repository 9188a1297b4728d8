"""What a harmony answer may be made of, where the caller demands a format or calls. Reasoning stays free."""

from services.core.request import Choice, Conversation, Function, JsonSchema
from services.text.harmony.header import NAMESPACE
from services.text.structure import (
    ANYTHING,
    Rule,
    arguments,
    content,
    one_of,
    optional,
    sequence,
    tag,
    text,
)

END = ["<|end|>", ""]  # the stop ids may end it at once
JSON = (" <|constrain|>json", " json")  # how the model writes it, and how it often does
NEXT = "<|start|>assistant"


def is_demanded(conversation: Conversation) -> bool:
    strict = any(function.strict for function in _offered(conversation))
    return conversation.format is not None or conversation.choice is Choice.REQUIRED or strict


def of(conversation: Conversation) -> Rule:
    """Reasoning, perhaps a preamble to a call, then a call or the answer."""
    functions = _offered(conversation)
    endings = [call for function in functions for call in _calls(function)]
    if conversation.choice is not Choice.REQUIRED:
        endings += _finals(conversation)
    return sequence(_message("analysis"), *([_message("commentary")] if functions else []), one_of(endings))


def _offered(conversation: Conversation) -> tuple[Function, ...]:
    return () if conversation.choice is Choice.NONE else conversation.functions


def _message(channel: str) -> Rule:
    """One such message, or none, before the one that counts."""
    return optional(sequence(tag(f"<|channel|>{channel}<|message|>", ANYTHING, "<|end|>"), text(NEXT)))


def _finals(conversation: Conversation) -> list[Rule]:
    format = conversation.format
    if format is None:
        return [tag("<|channel|>final<|message|>", ANYTHING, END)]
    types = JSON if isinstance(format, JsonSchema) else ("",)
    return [tag(f"<|channel|>final{type}<|message|>", content(format), END) for type in types]


def _calls(function: Function) -> list[Rule]:
    """The recipient stands after the role or after the channel."""
    begins = ("<|channel|>commentary to={}{}<|message|>", " to={}<|channel|>commentary{}<|message|>")
    recipient = NAMESPACE + function.name
    return [tag(begin.format(recipient, type), arguments(function), END) for begin in begins for type in JSON]
