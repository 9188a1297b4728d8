"""Journal events as messages of the public API. Consecutive deltas become one: what waited is sent together."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.events import (
    Answered,
    CallDelta,
    Delta,
    Durability,
    Ending,
    Event,
    Failed,
    Finished,
    FinishReason,
    Logprob,
    Migrated,
    ReasoningDelta,
    Restarted,
    Started,
    TakenOver,
    Usage,
    Waiting,
    WaitReason,
)
from services.core.request import Message, Role
from services.gateway.boundary import status_of
from services.gateway.validate import ROLES
from services.journal.port import Entry

REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.STOP_SEQUENCE: pb.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
    FinishReason.MALFORMED: pb.FINISH_REASON_MALFORMED,
}
DURABILITY = {
    Durability.UNASKED: pb.DURABILITY_UNSPECIFIED,
    Durability.CONFIRMED: pb.DURABILITY_CONFIRMED,
    Durability.UNCONFIRMED: pb.DURABILITY_UNCONFIRMED,
}
WAITS = {WaitReason.NO_REPLICA: pb.Waiting.NO_REPLICA, WaitReason.FULL: pb.Waiting.FULL}
WIRE_ROLES: dict[Role, Any] = {role: number for number, role in ROLES.items()}


def messages(
    entries: Sequence[Entry], epoch: int = 0, *, shows_reasoning: bool = False
) -> Iterator[pb.StreamEvent]:
    """What a reader is sent for these entries. Reasoning stays here unless the reader may see it."""
    if len(entries) == 1 and isinstance(delta := entries[0].event, Delta):  # the token path
        yield pb.StreamEvent(seq=entries[0].seq, delta=_delta([delta]), choice=delta.choice, epoch=epoch)
        return
    for wire in _grouped(entries, shows_reasoning=shows_reasoning):
        wire.epoch = epoch
        yield wire


def rewind(
    answers: Sequence[Message], seq: int, epoch: int, *, shows_reasoning: bool = False
) -> pb.StreamEvent:
    wire = pb.StreamEvent(seq=seq, epoch=epoch)
    wire.rewind.answers.extend(message(each, shows_reasoning=shows_reasoning) for each in answers)
    return wire


def _grouped(entries: Sequence[Entry], *, shows_reasoning: bool) -> Iterator[pb.StreamEvent]:
    for key, group in groupby(entries, key=_stream_of):
        if key is None:
            yield from (_message(entry) for entry in group if not _refusal(entry))
        elif key[0] is not ReasoningDelta or shows_reasoning:
            yield _merged(list(group))


def usage(event: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=event.prompt,
        completion_tokens=event.completion,
        cached_tokens=event.cached,
        reasoning_tokens=event.reasoning,
        migrations=event.migrations,
        takeovers=event.takeovers,
    )


def message(said: Message, *, shows_reasoning: bool) -> pb.Message:
    wire = pb.Message(role=WIRE_ROLES[said.role], tool_call_id=said.call_id)
    if said.text or not said.calls:
        wire.content.add(text=said.text)
    if shows_reasoning:
        wire.reasoning = said.reasoning
    for call in said.calls:
        wire.tool_calls.add(id=call.id, name=call.name, arguments=call.arguments)
    return wire


def logprobs(scores: Iterable[Logprob]) -> list[pb.TokenLogprob]:
    return [
        pb.TokenLogprob(
            token=score.token,
            logprob=score.logprob,
            top=[pb.Alternative(token=token, logprob=logprob) for token, logprob in score.top],
        )
        for score in scores
    ]


def _stream_of(entry: Entry) -> tuple[type, int, int] | None:
    """Entries of one kind, answer and call that follow each other may be merged; None: never."""
    event = entry.event
    if isinstance(event, Delta | ReasoningDelta | Waiting):
        return type(event), event.choice, 0
    return (CallDelta, event.choice, event.index) if isinstance(event, CallDelta) else None


def _refusal(entry: Entry) -> bool:
    """A turn that failed before it started is no stream: the status alone says it. What happens between the
    gateways and the model is told to nobody."""
    internal = isinstance(entry.event, Restarted | Migrated | TakenOver | Answered)
    return internal or (entry.seq == 1 and isinstance(entry.event, Failed))


def _merged(entries: list[Entry]) -> pb.StreamEvent:
    events: list[Any] = [entry.event for entry in entries]
    wire, first = pb.StreamEvent(seq=entries[-1].seq, choice=events[0].choice), events[0]
    if isinstance(first, Delta):
        wire.delta.CopyFrom(_delta(events))
    elif isinstance(first, Waiting):
        last = events[-1]
        wire.waiting.reason = WAITS[last.reason]
        wire.waiting.held_ms, wire.waiting.position = last.held_ms, last.position
    elif isinstance(first, ReasoningDelta):
        wire.reasoning.text, wire.reasoning.tokens = "".join(e.text for e in events), _tokens(events)
    else:
        call = wire.tool_call
        call.index, call.id, call.name = first.index, first.id, first.name
        call.arguments, call.tokens = "".join(e.arguments for e in events), _tokens(events)
    return wire


def _delta(deltas: Sequence[Delta]) -> pb.Delta:
    wire = pb.Delta(text="".join([delta.text for delta in deltas]), tokens=_tokens(deltas))
    if any(delta.logprobs for delta in deltas):
        wire.logprobs.extend(logprobs(score for delta in deltas for score in delta.logprobs))
    return wire


def _tokens(events: Sequence[Delta | ReasoningDelta | CallDelta]) -> int:
    return sum([len(event.ids) for event in events])


def _message(entry: Entry) -> pb.StreamEvent:
    event: Event = entry.event
    wire = pb.StreamEvent(seq=entry.seq)
    if isinstance(event, Started):
        wire.started.turn, wire.started.model = event.turn, event.model
        wire.started.prompt_tokens = event.prompt_tokens
        wire.started.resumable, wire.started.messages_dropped = event.resumable, event.messages_dropped
    elif isinstance(event, Usage):
        wire.usage.CopyFrom(usage(event))
    elif isinstance(event, Finished):
        wire.finished.reason = REASONS[event.ending.reason]
        wire.finished.stop_sequence = event.ending.stop_sequence
        wire.finished.session_version = event.session_version
        wire.finished.durability = DURABILITY[event.durability]
        wire.finished.more.extend(map(_ending, event.endings[1:]))
    elif isinstance(event, Failed):
        fill_error(wire.error, event)
    return wire


def _ending(ending: Ending) -> pb.Ending:
    return pb.Ending(reason=REASONS[ending.reason], stop_sequence=ending.stop_sequence)


def fill_error(error: pb.Error, event: Failed) -> None:
    status = status_of(event.error)
    error.outcome = event.error.outcome.upper()
    error.message = status.message
    error.code = status.code
    error.retry_after_ms = round((event.error.retry_after or 0) * 1000)
