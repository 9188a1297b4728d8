"""The events of a turn as its caller sees them. The last is Finished; a turn that fails raises instead."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.api.headrace.v1 import inference_pb2 as pb
from services.client.messages import Message

FinishReason = Literal["stop", "stop_sequence", "length", "tool_calls", "malformed"]

REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_STOP_SEQUENCE: "stop_sequence",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_MALFORMED: "malformed",
}

WaitReason = Literal["no_replica", "full"]

WAITS: dict[int, WaitReason] = {pb.Waiting.NO_REPLICA: "no_replica", pb.Waiting.FULL: "full"}

Durability = Literal["confirmed", "unconfirmed"]

DURABILITIES: dict[int, Durability] = {
    pb.DURABILITY_CONFIRMED: "confirmed",
    pb.DURABILITY_UNCONFIRMED: "unconfirmed",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """`migrations` counts moves to another replica, `takeovers` moves to another gateway."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    migrations: int = 0
    takeovers: int = 0


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's bytes, which may be part of a character, its log probability, and the likeliest tokens'."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """`resumable` is false while the turn lives in one gateway only. `messages_dropped`: by the context policy."""

    seq: int
    turn: str
    model: str
    prompt_tokens: int
    resumable: bool = False
    messages_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """No replica has room yet: `held` seconds so far, and the place in the gateway's queue, 1 for the next."""

    seq: int
    reason: WaitReason
    held: float
    position: int
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """Whole characters, and how many sampled tokens they stand for. `choice` tells which of n answers it is."""

    seq: int
    text: str
    tokens: int
    choice: int = 0
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    seq: int
    text: str
    tokens: int
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Begins the call with this index, if it has an id and a name; `arguments` is to be appended."""

    seq: int
    index: int
    arguments: str
    tokens: int
    id: str = ""
    name: str = ""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    seq: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Ending:
    reason: FinishReason
    stop_sequence: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """`more` tells how the other answers ended, with n > 1. `durability` is None if it was not asked for."""

    seq: int
    reason: FinishReason
    stop_sequence: str = ""
    session_version: int = 0
    more: tuple[Ending, ...] = ()
    durability: Durability | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """What the caller has is not what survived: the answers stand as they are here, and go on from here."""

    seq: int
    answers: tuple[Message, ...]


Event = Started | Waiting | Delta | ReasoningDelta | ToolCallDelta | Rewind | Used | Finished


def usage(wire: pb.Usage) -> Usage:
    return Usage(
        wire.prompt_tokens,
        wire.completion_tokens,
        wire.cached_tokens,
        wire.reasoning_tokens,
        wire.migrations,
        wire.takeovers,
    )


def logprobs(wire: Iterable[pb.TokenLogprob]) -> tuple[Logprob, ...]:
    return tuple(
        Logprob(each.token, each.logprob, tuple((top.token, top.logprob) for top in each.top))
        for each in wire
    )


def from_wire(wire: pb.StreamEvent) -> Event | None:
    """None for what is no event of the caller's (`error`, `rewind`) and for events of a later version."""
    match wire.WhichOneof("event"):
        case "delta":
            scores = logprobs(wire.delta.logprobs)
            return Delta(wire.seq, wire.delta.text, wire.delta.tokens, wire.choice, scores)
        case "reasoning":
            return ReasoningDelta(wire.seq, wire.reasoning.text, wire.reasoning.tokens, wire.choice)
        case "tool_call":
            return _call(wire)
        case "started":
            return _started(wire.seq, wire.started)
        case "usage":
            return Used(wire.seq, usage(wire.usage))
        case "waiting":
            return _waiting(wire)
        case "finished":
            return _finished(wire)
        case _:
            return None


def _started(seq: int, wire: pb.Started) -> Started:
    return Started(seq, wire.turn, wire.model, wire.prompt_tokens, wire.resumable, wire.messages_dropped)


def _waiting(wire: pb.StreamEvent) -> Waiting:
    told = wire.waiting
    reason = WAITS.get(told.reason, "no_replica")
    return Waiting(wire.seq, reason, told.held_ms / 1000, told.position, wire.choice)


def _call(wire: pb.StreamEvent) -> ToolCallDelta:
    call = wire.tool_call
    return ToolCallDelta(
        wire.seq, call.index, call.arguments, call.tokens, call.id, call.name, choice=wire.choice
    )


def _finished(wire: pb.StreamEvent) -> Finished:
    end = wire.finished
    more = tuple(Ending(REASONS[each.reason], each.stop_sequence) for each in end.more)
    return Finished(
        wire.seq,
        REASONS[end.reason],
        end.stop_sequence,
        end.session_version,
        more,
        DURABILITIES.get(end.durability),
    )
