"""Turns a wire message into an Ask, or says which fields are wrong and what would be right. Pure and total."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.errors import MAX_VIOLATIONS, InvalidRequest, NotFound, Violation
from services.core.request import RANGES, Ask, Message, Range, Role, Sampling

MAX_MESSAGES = 1024
MAX_PARTS = 1024  # of one message
MAX_STOPS = 16
MAX_STOP_BYTES = 256

ROLES = {pb.ROLE_SYSTEM: Role.SYSTEM, pb.ROLE_USER: Role.USER, pb.ROLE_ASSISTANT: Role.ASSISTANT}


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Tokens: ids known to the tokenizer; prompt and output together."""

    vocabulary: int
    context_length: int


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
    )
    return Ask(
        model=model,
        messages=read_messages(request.messages),
        session=request.session or None,
        sampling=_read_sampling(request.sampling),
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        min_tokens=request.min_tokens,
        stop=tuple(request.stop),
    )


def validate_count(request: pb.CountTokensRequest, models: Mapping[str, ModelLimits]) -> Ask:
    """As `validate`, for a request that only counts."""
    model = resolve(request.model, models)
    refuse_any(_messages(request.messages))
    return Ask(model=model, messages=read_messages(request.messages), session=request.session or None)


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
    return tuple(Message(ROLES[m.role], "".join(part.text for part in m.content)) for m in messages)


def _messages(messages: Iterable[pb.Message]) -> Iterator[Violation]:
    messages = list(messages)
    if not messages:
        yield Violation("messages", "at least one message is required")
        return
    yield from _each_message(messages)
    if messages[-1].role != pb.ROLE_USER:
        yield Violation(f"messages[{len(messages) - 1}].role", "the last message must be the user's")


def _each_message(messages: list[pb.Message]) -> Iterator[Violation]:
    if len(messages) > MAX_MESSAGES:
        yield Violation("messages", f"at most {MAX_MESSAGES} messages; {len(messages)} were sent")
        return
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            yield Violation(f"messages[{i}].role", "one of ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT")
        yield from _content(i, message)


def _content(i: int, message: pb.Message) -> Iterator[Violation]:
    if len(message.content) > MAX_PARTS:
        yield Violation(
            f"messages[{i}].content", f"at most {MAX_PARTS} parts; {len(message.content)} were sent"
        )
        return
    if not any(part.text.strip() for part in message.content):
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
