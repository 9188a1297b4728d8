"""The events of a turn as its caller sees them. The last is Finished; a turn that fails raises instead."""

from dataclasses import dataclass
from typing import Literal

from services.api.headrace.v1 import inference_pb2 as pb

FinishReason = Literal["stop", "stop_sequence", "length"]

REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_STOP_SEQUENCE: "stop_sequence",
    pb.FINISH_REASON_LENGTH: "length",
}


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    seq: int
    turn: str
    model: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Whole characters, and how many sampled tokens they stand for."""

    seq: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Used:
    seq: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    seq: int
    reason: FinishReason
    stop_sequence: str = ""
    session_version: int = 0


Event = Started | Delta | Used | Finished


def usage(wire: pb.Usage) -> Usage:
    return Usage(wire.prompt_tokens, wire.completion_tokens, wire.cached_tokens)


def from_wire(wire: pb.StreamEvent) -> Event | None:
    """None for `error` (the status that follows it is raised) and for events of a later version."""
    match wire.WhichOneof("event"):
        case "delta":
            return Delta(wire.seq, wire.delta.text, wire.delta.tokens)
        case "started":
            return Started(wire.seq, wire.started.turn, wire.started.model, wire.started.prompt_tokens)
        case "usage":
            return Used(wire.seq, usage(wire.usage))
        case "finished":
            end = wire.finished
            return Finished(wire.seq, REASONS[end.reason], end.stop_sequence, end.session_version)
        case _:
            return None
