"""The numbered events of a turn. A turn has exactly one terminal event (Finished or Failed), its last."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from services.core.errors import HeadraceError


class FinishReason(StrEnum):
    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the whole turn; the event before the terminal one.

    `completion` counts what was sampled, reasoning and format included; `reasoning` is a part of it.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    migrations: int = 0  # moves to another replica after the first token
    takeovers: int = 0  # moves to another gateway


@dataclass(frozen=True, slots=True)
class Started:
    turn: str
    model: str
    prompt_tokens: int
    resumable: bool = False  # the store has the turn
    messages_dropped: int = 0  # by the context policy


class WaitReason(StrEnum):
    NO_REPLICA = "no_replica"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Waiting:
    """No replica has room for an answer, and the gateway holds it until one has."""

    reason: WaitReason
    held_ms: int  # so far
    position: int  # in the gateway's queue; 1 is the next
    choice: int = 0


class Logprob(NamedTuple):
    """A sampled token's bytes, its log probability, and the likeliest alternatives'."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(slots=True)
class Delta:
    """Whole characters of an answer's content, and the ids sampled since the event before."""

    text: str
    ids: list[int]
    choice: int = 0
    logprobs: Sequence[Logprob] = ()


@dataclass(slots=True)
class ReasoningDelta:
    text: str
    ids: list[int]
    choice: int = 0


@dataclass(slots=True)
class CallDelta:
    """Begins a call, if it has an id and a name, or adds to the arguments of the one with this index."""

    index: int
    arguments: str
    ids: list[int]
    choice: int = 0
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came of this answer so far is void: nothing of it was visible, and it is sampled again.

    `held`: to its format, since the model broke it.
    """

    choice: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    reason: FinishReason
    stop_sequence: str = ""


class Durability(StrEnum):
    UNASKED = "unasked"
    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Migrated:
    """An answer went on at another replica."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Another gateway goes on from here; what an older epoch said beyond is void."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Every answer is whole; what is left is to keep them."""

    endings: tuple[Ending, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """`endings` has one for each answer, `ending` is the first one's."""

    endings: tuple[Ending, ...]
    session_version: int = 0
    durability: Durability = Durability.UNASKED

    @property
    def ending(self) -> Ending:
        return self.endings[0]


@dataclass(frozen=True, slots=True)
class Failed:
    error: HeadraceError


Event = (
    Started
    | Waiting
    | Delta
    | ReasoningDelta
    | CallDelta
    | Restarted
    | Migrated
    | TakenOver
    | Answered
    | Usage
    | Finished
    | Failed
)
