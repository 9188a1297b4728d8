"""What a caller sends, as plain values, and its form on the wire."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal, TypedDict

from services.api.headrace.v1 import inference_pb2 as pb

Role = Literal["system", "user", "assistant", "tool"]
Effort = Literal["low", "medium", "high"]
ContextPolicy = Literal["refuse", "drop_oldest", "summarize"]
SessionBusy = Literal["abort", "queue"]

ROLES: dict[Role, pb.Role] = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_TOOL,
}
EFFORTS: dict[Effort, pb.ReasoningEffort] = {
    "low": pb.REASONING_EFFORT_LOW,
    "medium": pb.REASONING_EFFORT_MEDIUM,
    "high": pb.REASONING_EFFORT_HIGH,
}
POLICIES: dict[ContextPolicy, pb.ContextPolicy] = {
    "refuse": pb.CONTEXT_POLICY_REFUSE,
    "drop_oldest": pb.CONTEXT_POLICY_DROP_OLDEST,
    "summarize": pb.CONTEXT_POLICY_SUMMARIZE,
}
WHEN_BUSY: dict[SessionBusy, pb.SessionBusy] = {
    "abort": pb.SESSION_BUSY_ABORT,
    "queue": pb.SESSION_BUSY_QUEUE,
}
NAMES: dict[int, Role] = {number: name for name, number in ROLES.items()}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is a JSON object as text, as the model wrote it: check it before use."""

    id: str
    name: str
    arguments: str

    def result(self, text: str) -> "Message":
        """The message that answers this call."""
        return Message("tool", text, call_id=self.id)


@dataclass(frozen=True, slots=True)
class Message:
    """`reasoning` and `calls` are an assistant's; `call_id` is a tool's. An answer can be sent back as it came."""

    role: Role
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is the JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False


Messages = str | Iterable[Message]  # a string is one message of the user


@dataclass(frozen=True, slots=True)
class Sampling:
    """None leaves the choice to the endpoint. Ranges: headrace/v1/inference.proto."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON that conforms to the schema."""

    schema: Mapping[str, Any]
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Options:
    """The answer is one of these."""

    options: Sequence[str]


Format = JsonSchema | Regex | Options


class Wish(TypedDict, total=False):
    """How to answer; what is absent is the endpoint's choice. Ranges: headrace/v1/inference.proto.

    `tool_choice` is auto, none, required or the name of a tool. `reasoning` asks for the model's reasoning too.
    `idempotency_key` names the turn: the same key with the same request reads it again. Without it the client draws
    one for each call. `linger` is in seconds: how long the turn goes on unread.
    """

    model: str
    session: str
    session_version: int | None
    sampling: Sampling | None
    max_tokens: int | None
    min_tokens: int | None
    stop: Sequence[str]
    tools: Sequence[Tool]
    tool_choice: str
    format: Format | None
    effort: Effort | None
    reasoning: bool
    logprobs: int | None
    n: int
    ignore_eos: bool
    idempotency_key: str
    linger: int | None
    durable: bool
    context_policy: ContextPolicy
    session_busy: SessionBusy


LONGEST_TURN = 600  # seconds; the endpoint's limit, unless its operator set another


def asked(messages: Messages, wish: Wish, key: str, timeout: float | None) -> pb.GenerateRequest:
    """A request for a turn, with a key of its own and its deadline, so that it can be repeated."""
    wire = request(messages, wish)
    wire.idempotency_key = wire.idempotency_key or key
    # The call's own deadline does not outlive the call. Where it is too long for a turn the endpoint's limit holds.
    if timeout is not None and 0 < timeout <= LONGEST_TURN:
        wire.timeout_seconds = ceil(timeout)
    return wire


def request(messages: Messages, wish: Wish) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        messages=to_wire(messages),
        model=wish.get("model", ""),
        session=wish.get("session", ""),
        session_version=wish.get("session_version"),
        sampling=sampling_to_wire(wish.get("sampling")),
        max_tokens=wish.get("max_tokens"),
        min_tokens=wish.get("min_tokens"),
        stop=wish.get("stop", ()),
        tools=map(_tool, wish.get("tools", ())),
        tool_choice=_choice(wish.get("tool_choice", "auto")),
        response_format=_format(wish.get("format")),
        reasoning=_reasoning(wish.get("effort"), wish.get("reasoning", False)),
        logprobs=wish.get("logprobs"),
        n=wish.get("n"),
        ignore_eos=wish.get("ignore_eos", False),
        idempotency_key=wish.get("idempotency_key", ""),
        linger_seconds=wish.get("linger"),
        durable=wish.get("durable", False),
        context_policy=POLICIES[wish.get("context_policy", "refuse")],
        session_busy=WHEN_BUSY[wish.get("session_busy", "abort")],
    )


def _tool(tool: Tool) -> pb.Tool:
    parameters = "" if tool.parameters is None else json.dumps(tool.parameters, ensure_ascii=False)
    function = pb.Function(
        name=tool.name, description=tool.description, parameters=parameters, strict=tool.strict
    )
    return pb.Tool(function=function)


def _choice(choice: str) -> pb.ToolChoice:
    if choice in ("auto", "none", "required"):
        return pb.ToolChoice(mode=choice.upper())
    return pb.ToolChoice(function=choice)


def _format(format: Format | None) -> pb.ResponseFormat | None:
    if isinstance(format, JsonSchema):
        schema = json.dumps(format.schema, ensure_ascii=False)
        wire = pb.JsonSchema(schema=schema, name=format.name, description=format.description)
        return pb.ResponseFormat(json_schema=wire)
    if isinstance(format, Regex):
        return pb.ResponseFormat(regex=format.pattern)
    return None if format is None else pb.ResponseFormat(options=pb.Options(options=format.options))


def _reasoning(effort: Effort | None, include: bool) -> pb.Reasoning:
    return pb.Reasoning(effort=None if effort is None else EFFORTS[effort], include=include)


def to_wire(messages: Messages) -> list[pb.Message]:
    said = [Message("user", messages)] if isinstance(messages, str) else messages
    return [_message(each) for each in said]


def _message(message: Message) -> pb.Message:
    return pb.Message(
        role=ROLES[message.role],
        content=[pb.Part(text=message.text)],
        reasoning=message.reasoning,
        tool_calls=[pb.ToolCall(id=c.id, name=c.name, arguments=c.arguments) for c in message.calls],
        tool_call_id=message.call_id,
    )


def from_wire(message: pb.Message) -> Message:
    return Message(
        role=NAMES[message.role],
        text="".join(part.text for part in message.content),
        reasoning=message.reasoning,
        calls=tuple(ToolCall(c.id, c.name, c.arguments) for c in message.tool_calls),
        call_id=message.tool_call_id,
    )


def sampling_to_wire(sampling: Sampling | None) -> pb.Sampling | None:
    if sampling is None:
        return None
    return pb.Sampling(**{name: value for name, value in asdict(sampling).items() if value is not None})
