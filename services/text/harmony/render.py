"""A conversation becomes harmony messages, and those become token ids by oss-harmony.

Message text is encoded as ordinary text by the library, whatever it spells; names that stand in headers are
checked before they get here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openai_harmony import (
    Author,
    Conversation,
    DeveloperContent,
    HarmonyError,
    ReasoningEffort,
    RenderConversationConfig,
    SystemContent,
    TextContent,
    ToolDescription,
)
from openai_harmony import Message as Said
from openai_harmony import Role as Speaker

from services.core import request as core
from services.core.errors import InvalidRequest, Violation
from services.core.request import Effort, Function, JsonSchema, Message, Role, last_answer
from services.text.harmony.header import NAMESPACE
from services.text.harmony.vocabulary import encoding
from services.text.structure import offered

EFFORTS = {
    None: ReasoningEffort.MEDIUM,
    Effort.LOW: ReasoningEffort.LOW,
    Effort.MEDIUM: ReasoningEffort.MEDIUM,
    Effort.HIGH: ReasoningEffort.HIGH,
}
# What is to be dropped is dropped in `history`: the library drops only what precedes the first final message.
KEEP = RenderConversationConfig(auto_drop_analysis=False)
FORMAT_NAME = "answer"  # of a response format that the caller gave none


def render(conversation: core.Conversation) -> list[int]:
    """The prompt, up to `<|start|>assistant`. Raises InvalidRequest."""
    said = Conversation.from_messages([*_preamble(conversation), *history(conversation.messages)])
    try:
        ids: list[int] = encoding().render_conversation_for_completion(said, Speaker.ASSISTANT, KEEP)
    except (HarmonyError, ValueError) as error:
        raise InvalidRequest(Violation("messages", "cannot be rendered as harmony")) from error
    return ids


def _preamble(conversation: core.Conversation) -> Iterator[Said]:
    """The system message, which is the model's own, and the developer's: instructions, functions, format."""
    system = SystemContent.new().with_reasoning_effort(EFFORTS[conversation.effort])
    if conversation.date:
        system = system.with_conversation_start_date(conversation.date)
    yield Said.from_role_and_content(Speaker.SYSTEM, system)
    if contents := _developer(conversation):
        yield Said.from_role_and_contents(Speaker.DEVELOPER, contents)


def _developer(conversation: core.Conversation) -> list[Any]:
    """What the caller demands. Text that follows instructions is joined to them before it is encoded, since
    a full stop and the blank line after it are one token."""
    format = conversation.format
    demanded = response_format(format) if isinstance(format, JsonSchema) else ""
    instructions = "\n\n".join(message.text for message in leading(conversation.messages))
    functions = [*map(_description, offered(conversation))]
    if functions:
        developer = DeveloperContent.new().with_function_tools(functions)
        contents = [developer.with_instructions(instructions) if instructions else developer]
        return [*contents, TextContent(text=f"\n\n{demanded}")] if demanded else contents
    if instructions:
        text = f"{instructions}\n\n{demanded}" if demanded else instructions
        return [DeveloperContent.new().with_instructions(text)]
    return [TextContent(text=demanded)] if demanded else []


def leading(messages: Sequence[Message]) -> list[Message]:
    """The system messages that a conversation begins with."""
    count = next((i for i, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    return list(messages[:count])


def _description(function: Function) -> ToolDescription:
    # An object without properties is written as a function without arguments.
    empty = not (function.parameters and function.parameters.get("properties"))
    parameters = None if empty else dict(function.parameters or {})
    return ToolDescription.new(function.name, function.description, parameters)


def response_format(format: JsonSchema) -> str:
    described = f"// {format.description}\n" if format.description else ""
    schema = json.dumps(format.schema, ensure_ascii=False, separators=(",", ":"))
    return f"# Response Formats\n\n## {format.name or FORMAT_NAME}\n\n{described}{schema}"


def history(messages: Sequence[Message]) -> Iterator[Said]:
    """The messages after the leading instructions. Reasoning stays only in the tool loop that is still open."""
    rest = messages[len(leading(messages)) :]
    names: dict[str, str] = {}  # of the calls so far
    answered = last_answer(rest)
    for i, message in enumerate(rest):
        names |= {call.id: call.name for call in message.calls}
        if message.role is Role.ASSISTANT:
            yield from _assistant(message, thinks=i > answered)
        elif message.role is Role.TOOL:
            yield _result(message, names)
        elif message.role is Role.SYSTEM:
            content = DeveloperContent.new().with_instructions(message.text)
            yield Said.from_role_and_content(Speaker.DEVELOPER, content)
        else:
            yield Said.from_role_and_content(Speaker.USER, message.text)


def _assistant(message: Message, *, thinks: bool) -> Iterator[Said]:
    if thinks and message.reasoning:
        yield Said.from_role_and_content(Speaker.ASSISTANT, message.reasoning).with_channel("analysis")
    if message.text:
        channel = "commentary" if message.calls else "final"
        yield Said.from_role_and_content(Speaker.ASSISTANT, message.text).with_channel(channel)
    for call in message.calls:
        said = Said.from_role_and_content(Speaker.ASSISTANT, call.arguments).with_channel("commentary")
        yield said.with_recipient(NAMESPACE + call.name).with_content_type("<|constrain|>json")


def _result(message: Message, names: Mapping[str, str]) -> Said:
    if message.call_id not in names:
        raise InvalidRequest(Violation("messages", "a tool_call_id is that of no call before it"))
    author = Author.new(Speaker.TOOL, NAMESPACE + names[message.call_id])
    said = Said.from_author_and_content(author, message.text)
    return said.with_recipient("assistant").with_channel("commentary")
