"""The numbered events of a turn. A turn has exactly one terminal event (Finished or Failed), its last."""

from dataclasses import dataclass
from enum import StrEnum

from services.core.errors import HeadraceError


class FinishReason(StrEnum):
    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the whole turn; the event before the terminal one.

    `completion` counts sampled tokens that were delivered or held back by a stop match.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    turn: str
    model: str
    prompt_tokens: int


@dataclass(slots=True)
class Delta:
    """Whole characters, and the ids they came from: what another replica would need to go on."""

    text: str
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    stop_sequence: str = ""
    session_version: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    error: HeadraceError


Event = Started | Delta | Usage | Finished | Failed
