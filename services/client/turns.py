"""Turns at rest: the answer of one that has ended, and one as far as it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.api.headrace.v1 import inference_pb2 as pb
from services.client import events
from services.client.errors import HeadraceError, of_event
from services.client.messages import Message, from_wire

State = Literal["running", "finished", "failed"]

STATES: dict[int, State] = {
    pb.Turn.RUNNING: "running",
    pb.Turn.FINISHED: "finished",
    pb.Turn.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the other answers, with n > 1."""

    message: Message
    reason: events.FinishReason
    stop_sequence: str = ""
    logprobs: tuple[events.Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`durability` is None if it was not asked for; `messages_dropped` counts those the context policy left out."""

    turn: str
    model: str
    message: Message
    reason: events.FinishReason
    usage: events.Usage
    session_version: int
    stop_sequence: str = ""
    logprobs: tuple[events.Logprob, ...] = ()
    more: tuple[Choice, ...] = ()
    durability: events.Durability | None = None
    messages_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """`messages` are its answers as far as they are, `answer` is whole and there once it has finished.

    (`epoch`, `seq`) is the position of its last event; `error` is what a failed one ended with.
    """

    id: str
    state: State
    seq: int
    epoch: int
    messages: tuple[Message, ...] = ()
    answer: Answer | None = None
    error: HeadraceError | None = None


def answer(wire: pb.GenerateResponse) -> Answer:
    return Answer(
        turn=wire.turn,
        model=wire.model,
        message=from_wire(wire.message),
        reason=events.REASONS[wire.finish_reason],
        usage=events.usage(wire.usage),
        session_version=wire.session_version,
        stop_sequence=wire.stop_sequence,
        logprobs=events.logprobs(wire.logprobs),
        more=tuple(_choices(wire.more)),
        durability=events.DURABILITIES.get(wire.durability),
        messages_dropped=wire.messages_dropped,
    )


def turn(wire: pb.Turn) -> Turn:
    said = (wire.answer.message, *(each.message for each in wire.answer.more))
    return Turn(
        id=wire.id,
        state=STATES[wire.state],
        seq=wire.seq,
        epoch=wire.epoch,
        # An answer that has not begun has no role yet.
        messages=tuple(from_wire(each) for each in said if each.role),
        answer=answer(wire.answer) if wire.state == pb.Turn.FINISHED else None,
        error=of_event(wire.error) if wire.state == pb.Turn.FAILED else None,
    )


def _choices(wire: Iterable[pb.Choice]) -> Iterable[Choice]:
    for each in wire:
        reason, scores = events.REASONS[each.finish_reason], events.logprobs(each.logprobs)
        yield Choice(from_wire(each.message), reason, each.stop_sequence, scores)
