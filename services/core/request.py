"""What a caller asks for, after validation: plain values that nothing outside this gateway shaped."""

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    text: str


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
class Tenant:
    id: str
    key: str  # id of the API key that named the tenant


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
