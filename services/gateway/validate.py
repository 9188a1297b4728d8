"""Turns a wire message into an Ask, or says which fields are wrong and what would be right. Pure and total."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.errors import MAX_VIOLATIONS, Forbidden, InvalidRequest, NotFound, Violation
from services.core.request import RANGES, Ask, Effort, Message, Range, Role, Sampling, Scope, Tenant, ToolCall
from services.gateway.validate_tools import NAME, check_format, check_tools, read_format, read_tools
from services.text.family import Abilities

MAX_MESSAGES = 1024
MAX_PARTS = 1024  # of one message
MAX_STOPS = 16
MAX_STOP_BYTES = 256

MAX_CALLS = 128  # of one message
MAX_CALL_ID = 128  # characters
MAX_LOGPROBS = 20
MAX_N = 8

TURN = re.compile(r"turn_[0-9a-f]{32}", re.ASCII)

ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
EFFORTS = {
    pb.REASONING_EFFORT_UNSPECIFIED: None,
    pb.REASONING_EFFORT_LOW: Effort.LOW,
    pb.REASONING_EFFORT_MEDIUM: Effort.MEDIUM,
    pb.REASONING_EFFORT_HIGH: Effort.HIGH,
}


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Tokens: ids known to the tokenizer; prompt and output together. And what the model can do."""

    vocabulary: int
    context_length: int
    abilities: Abilities = field(default_factory=Abilities)


DRAWN = (*RANGES, "top_k")


def resolve(name: str, models: Mapping[str, ModelLimits]) -> str:
    """The model to serve: by name, or the only one. Raises NotFound, InvalidRequest."""
    if name in models:
        return name
    if name:
        raise NotFound(f"model {name[:100]!r} is not served here; ListModels names those that are")
    if len(models) == 1:
        return next(iter(models))
    raise InvalidRequest(Violation("model", f"name one of {', '.join(sorted(models))}"))


def validate(request: pb.GenerateRequest, models: Mapping[str, ModelLimits]) -> Ask:
    """Raises NotFound for an unknown model and InvalidRequest with every violation found."""
    model = resolve(request.model, models)
    limits = models[model]
    refuse_any(
        _messages(request.messages),
        _sampling(request.sampling, limits),
        _token_bounds(request, limits),
        _stops(request.stop),
        check_tools(request),
        check_format(request.response_format),
        _effort(request.reasoning, limits),
        _answers(request),
    )
    return Ask(
        model=model,
        messages=read_messages(request.messages),
        session=request.session or None,
        sampling=_read_sampling(request.sampling),
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        min_tokens=request.min_tokens,
        stop=tuple(request.stop),
        **read_tools(request),
        format=read_format(request.response_format),
        effort=EFFORTS[request.reasoning.effort],
        shows_reasoning=request.reasoning.include,
        logprobs=request.logprobs if request.HasField("logprobs") else None,
        n=request.n if request.HasField("n") else 1,
        ignore_eos=request.ignore_eos,
    )


def validate_position(
    request: pb.ResumeTurnRequest | pb.GetTurnRequest | pb.CancelTurnRequest,
) -> None:
    """Raises InvalidRequest for what is no turn's id, or no position."""
    refuse_any(_position(request))


def _position(request: Any) -> Iterator[Violation]:
    if not TURN.fullmatch(request.turn):
        yield Violation("turn", "must be an id that `started` or StartTurn told")
    for name in ("after_seq", "epoch"):
        if getattr(request, name, 0) < 0:
            yield Violation(name, "0 or the one of an event that was read")


def permit(ask: Ask, tenant: Tenant) -> None:
    """Raises Forbidden if the request asks for what its key has no scope for."""
    for asked, scope, name in (
        (ask.shows_reasoning, Scope.REASONING, "reasoning.include"),
        (ask.ignore_eos, Scope.BENCH, "ignore_eos"),
    ):
        if asked and scope not in tenant.scopes:
            raise Forbidden(f"{name} needs a key with the scope {scope}")


def validate_count(request: pb.CountTokensRequest, models: Mapping[str, ModelLimits]) -> Ask:
    """As `validate`, for a request that only counts."""
    model = resolve(request.model, models)
    refuse_any(
        _messages(request.messages),
        check_tools(request),
        check_format(request.response_format),
        _effort(request.reasoning, models[model]),
    )
    return Ask(
        model=model,
        messages=read_messages(request.messages),
        session=request.session or None,
        **read_tools(request),
        format=read_format(request.response_format),
        effort=EFFORTS[request.reasoning.effort],
    )


def validate_history(messages: Iterable[pb.Message]) -> tuple[Message, ...]:
    """Messages that begin a session: any roles, none required. Raises InvalidRequest."""
    messages = list(messages)
    refuse_any(_each_message(messages))
    return read_messages(messages)


def refuse_any(*checks: Iterator[Violation]) -> None:
    """Raises InvalidRequest with the first violations that the checks find, if any."""
    if violations := [*islice(chain(*checks), MAX_VIOLATIONS)]:
        raise InvalidRequest(*violations)


def fit(ask: Ask, prompt_tokens: int, context_length: int, default_max_tokens: int) -> int:
    """Tokens that may be generated. Raises InvalidRequest, with the counts, if they are too many."""
    room = context_length - prompt_tokens
    if room < 1:
        raise over_context(str(prompt_tokens), context_length)
    if ask.min_tokens > room:
        raise InvalidRequest(
            Violation(
                "min_tokens",
                f"{prompt_tokens} prompt tokens leave {room} of the model's context of {context_length}",
            )
        )
    if ask.max_tokens is None:
        return max(min(room, default_max_tokens), ask.min_tokens)
    if ask.max_tokens > room:
        raise InvalidRequest(
            Violation(
                "max_tokens",
                f"{prompt_tokens} prompt tokens and max_tokens {ask.max_tokens} exceed the model's context"
                f" of {context_length}; at most {room} are left",
            )
        )
    return ask.max_tokens


def over_context(tokens: str, context_length: int) -> InvalidRequest:
    return InvalidRequest(
        Violation("messages", f"the prompt has {tokens} tokens; the model's context is {context_length}")
    )


def read_messages(messages: Iterable[pb.Message]) -> tuple[Message, ...]:
    return tuple(map(_read_message, messages))


def _read_message(message: pb.Message) -> Message:
    return Message(
        role=ROLES[message.role],
        text="".join(part.text for part in message.content),
        reasoning=message.reasoning,
        calls=tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls),
        call_id=message.tool_call_id,
    )


def _messages(messages: Iterable[pb.Message]) -> Iterator[Violation]:
    messages = list(messages)
    if not messages:
        yield Violation("messages", "at least one message is required")
        return
    yield from _each_message(messages)
    if messages[-1].role not in (pb.ROLE_USER, pb.ROLE_TOOL):
        yield Violation(f"messages[{len(messages) - 1}].role", "the last message is the user's or a tool's")


def _each_message(messages: list[pb.Message]) -> Iterator[Violation]:
    if len(messages) > MAX_MESSAGES:
        yield Violation("messages", f"at most {MAX_MESSAGES} messages; {len(messages)} were sent")
        return
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            yield Violation(f"messages[{i}].role", f"one of {', '.join(pb.Role.Name(r) for r in ROLES)}")
        yield from _content(i, message)
        yield from _calls(f"messages[{i}]", message)


def _calls(field: str, message: pb.Message) -> Iterator[Violation]:
    """What only an assistant's and what only a tool's message has."""
    if message.role != pb.ROLE_ASSISTANT and (message.reasoning or message.tool_calls):
        yield Violation(field, "reasoning and tool_calls are of ROLE_ASSISTANT only")
    if (message.role == pb.ROLE_TOOL) != bool(message.tool_call_id):
        yield Violation(f"{field}.tool_call_id", "of ROLE_TOOL, and required there")
    if len(message.tool_call_id) > MAX_CALL_ID:
        yield Violation(f"{field}.tool_call_id", f"at most {MAX_CALL_ID} characters")
    if len(message.tool_calls) > MAX_CALLS:
        yield Violation(f"{field}.tool_calls", f"at most {MAX_CALLS}; {len(message.tool_calls)} were sent")
        return
    for j, call in enumerate(message.tool_calls):
        if not 1 <= len(call.id) <= MAX_CALL_ID:
            yield Violation(f"{field}.tool_calls[{j}].id", f"1 to {MAX_CALL_ID} characters")
        if not NAME.fullmatch(call.name):
            yield Violation(f"{field}.tool_calls[{j}].name", "1 to 64 of A-Z, a-z, 0-9, _ and -")


def _content(i: int, message: pb.Message) -> Iterator[Violation]:
    if len(message.content) > MAX_PARTS:
        yield Violation(
            f"messages[{i}].content", f"at most {MAX_PARTS} parts; {len(message.content)} were sent"
        )
        return
    # A tool may have nothing to say, and an answer that was cut in its reasoning says nothing.
    may_be_blank = message.role in (pb.ROLE_TOOL, pb.ROLE_ASSISTANT)
    if not may_be_blank and not any(part.text.strip() for part in message.content):
        yield Violation(f"messages[{i}].content", "text that is not blank is required")
    for j, part in enumerate(message.content):
        if part.WhichOneof("part") is None:
            yield Violation(f"messages[{i}].content[{j}]", "a part of a kind that is supported: text")


def _sampling(sampling: pb.Sampling, limits: ModelLimits) -> Iterator[Violation]:
    ranges = RANGES | {"top_k": Range(0, limits.vocabulary)}
    for name, allowed in ranges.items():
        if sampling.HasField(name) and getattr(sampling, name) not in allowed:
            yield Violation(f"sampling.{name}", f"a number in {allowed}")


def _token_bounds(request: pb.GenerateRequest, limits: ModelLimits) -> Iterator[Violation]:
    top = limits.context_length
    if request.HasField("max_tokens") and not 1 <= request.max_tokens <= top:
        yield Violation("max_tokens", f"1 to {top}, the model's context; {request.max_tokens} was sent")
    most = min(request.max_tokens, top) if request.HasField("max_tokens") else top
    if request.HasField("min_tokens") and not 0 <= request.min_tokens <= most:
        yield Violation("min_tokens", f"0 to max_tokens; {request.min_tokens} was sent")


def _effort(reasoning: pb.Reasoning, limits: ModelLimits) -> Iterator[Violation]:
    if reasoning.effort and not limits.abilities.effort:
        yield Violation("reasoning.effort", "this model takes none")
        return
    if reasoning.effort not in EFFORTS:
        yield Violation("reasoning.effort", f"one of {', '.join(map(pb.ReasoningEffort.Name, EFFORTS))}")


def _answers(request: pb.GenerateRequest) -> Iterator[Violation]:
    if request.HasField("logprobs") and not 0 <= request.logprobs <= MAX_LOGPROBS:
        yield Violation("logprobs", f"0 to {MAX_LOGPROBS}; {request.logprobs} was sent")
    if request.HasField("n") and not 1 <= request.n <= MAX_N:
        yield Violation("n", f"1 to {MAX_N}; {request.n} was sent")
    if request.ignore_eos and (request.tools or request.HasField("response_format")):
        yield Violation("ignore_eos", "not with tools or response_format: they end an answer")
    choice = request.tool_choice
    demanded = choice.mode == pb.ToolChoice.REQUIRED or choice.function or request.HasField("response_format")
    if request.min_tokens and (demanded or any(tool.function.strict for tool in request.tools)):
        yield Violation(
            "min_tokens", "not with a format or a demanded call: they decide where an answer ends"
        )
    if request.n > 1 and request.session:
        yield Violation("n", "1 with a session, which goes on with one answer")


def _stops(stops: Iterable[str]) -> Iterator[Violation]:
    stops = list(stops)
    if len(stops) > MAX_STOPS:
        yield Violation("stop", f"at most {MAX_STOPS} strings; {len(stops)} were sent")
        return
    for i, stop in enumerate(stops):
        if not 1 <= len(stop.encode()) <= MAX_STOP_BYTES:
            yield Violation(f"stop[{i}]", f"1 to {MAX_STOP_BYTES} bytes; it has {len(stop.encode())}")


def _read_sampling(sampling: pb.Sampling) -> Sampling:
    return Sampling(
        **{name: _positive_zero(getattr(sampling, name)) for name in DRAWN if sampling.HasField(name)}
    )


def _positive_zero(value: Any) -> Any:
    """-0.0 would be greedy in one comparison and not in the next; adding 0.0 ends that."""
    return value + 0.0 if isinstance(value, float) else value
