"""What a caller asks for, after validation: plain values that nothing outside this gateway shaped."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called; `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """`reasoning` and `calls` are an assistant's, `call_id` is a tool's: the call whose result `text` is."""

    role: Role
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Everything in it that somebody wrote."""
        calls = (part for call in self.calls for part in (call.id, call.name, call.arguments))
        return (self.text, self.reasoning, *calls, self.call_id)

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return sum(len(part.encode()) for part in self.parts)


def last_answer(messages: Sequence[Message]) -> int:
    """Index of the last message that finished a turn, -1 without one; what follows is an open tool loop or new."""
    finished = (i for i, m in enumerate(messages) if m.role is Role.ASSISTANT and not m.calls)
    return max(finished, default=-1)


Schema = Mapping[str, Any]  # a JSON Schema, its keys in the caller's order


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may call. `strict`: its arguments are held to the schema while sampled."""

    name: str
    description: str = ""
    parameters: Schema | None = None
    strict: bool = False
    size: int = 0  # bytes of its definition


class Choice(StrEnum):
    """Whether the model calls functions: as it likes, never, or one of those offered and nothing else."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class JsonSchema:
    schema: Schema
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Regex:
    pattern: str


@dataclass(frozen=True, slots=True)
class Options:
    options: tuple[str, ...]


Format = JsonSchema | Regex | Options


class Effort(StrEnum):
    """How much a model reasons before it answers."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Scope(StrEnum):
    """What a key may do beyond generating."""

    REASONING = "reasoning"  # see the model's reasoning
    BENCH = "bench"  # let a model run past its end


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a prompt is made of. `functions` are those that may be called: one, if a call of it is demanded."""

    messages: tuple[Message, ...]
    functions: tuple[Function, ...] = ()
    choice: Choice = Choice.AUTO
    format: Format | None = None
    effort: Effort | None = None
    date: str = ""  # YYYY-MM-DD that the model is told

    @property
    def size(self) -> int:
        """Bytes of what the caller wrote."""
        return sum(m.size for m in self.messages) + sum(f.size for f in self.functions)


@dataclass(frozen=True, slots=True)
class Sampling:
    """None: the model's recommended value, or the engine's neutral one. Ranges: api/headrace/v1/inference.proto."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float
    low_open: bool = False

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and self.low <= value <= self.high
            and not (self.low_open and value == self.low)
        )

    def __str__(self) -> str:
        return f"{'(' if self.low_open else '['}{self.low:g}, {self.high:g}]"


RANGES = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, low_open=True),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 2, low_open=True),
    "seed": Range(0, 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    key: str  # id of the API key that named the tenant
    scopes: frozenset[Scope] = frozenset()


@dataclass(frozen=True, slots=True)
class Ask:
    """A validated request for a turn."""

    model: str
    messages: tuple[Message, ...]
    session: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    functions: tuple[Function, ...] = ()
    choice: Choice = Choice.AUTO
    format: Format | None = None
    effort: Effort | None = None
    shows_reasoning: bool = False
    logprobs: int | None = None  # alternatives to each sampled token
    n: int = 1
    ignore_eos: bool = False

    def demands(self) -> Iterator[str]:
        """The texts of functions and format."""
        for function in self.functions:
            yield from (
                function.name,
                function.description,
                json.dumps(function.parameters, ensure_ascii=False),
            )
        if isinstance(self.format, JsonSchema):
            yield from (self.format.description, json.dumps(self.format.schema, ensure_ascii=False))
        elif isinstance(self.format, Options):
            yield from self.format.options
