"""Journal events as messages of the public API. Consecutive deltas become one: what waited is sent together."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.events import Delta, Event, Failed, Finished, FinishReason, Started, Usage
from services.gateway.boundary import status_of
from services.journal.port import Entry

REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.STOP_SEQUENCE: pb.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


def messages(entries: Sequence[Entry]) -> Iterator[pb.StreamEvent]:
    if len(entries) == 1 and isinstance(delta := entries[0].event, Delta):  # the token path
        yield pb.StreamEvent(seq=entries[0].seq, delta=pb.Delta(text=delta.text, tokens=len(delta.ids)))
        return
    for is_delta, group in groupby(entries, key=lambda entry: isinstance(entry.event, Delta)):
        if is_delta:
            yield _merged(list(group))
        else:
            yield from (_message(entry) for entry in group if not _refusal(entry))


def usage(event: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=event.prompt, completion_tokens=event.completion, cached_tokens=event.cached
    )


def _refusal(entry: Entry) -> bool:
    """A turn that failed before it started is no stream: the status alone says it."""
    return entry.seq == 1 and isinstance(entry.event, Failed)


def _merged(entries: list[Entry]) -> pb.StreamEvent:
    deltas = [entry.event for entry in entries if isinstance(entry.event, Delta)]
    text = "".join(delta.text for delta in deltas)
    return pb.StreamEvent(
        seq=entries[-1].seq, delta=pb.Delta(text=text, tokens=sum(len(delta.ids) for delta in deltas))
    )


def _message(entry: Entry) -> pb.StreamEvent:
    event: Event = entry.event
    message = pb.StreamEvent(seq=entry.seq)
    if isinstance(event, Started):
        message.started.turn, message.started.model = event.turn, event.model
        message.started.prompt_tokens = event.prompt_tokens
    elif isinstance(event, Usage):
        message.usage.CopyFrom(usage(event))
    elif isinstance(event, Finished):
        message.finished.reason = REASONS[event.reason]
        message.finished.stop_sequence = event.stop_sequence
        message.finished.session_version = event.session_version
    elif isinstance(event, Failed):
        _fill_error(message.error, event)
    return message


def _fill_error(error: pb.Error, event: Failed) -> None:
    status = status_of(event.error)
    error.outcome = event.error.outcome.upper()
    error.message = status.message
    error.code = status.code
    error.retry_after_ms = round((event.error.retry_after or 0) * 1000)
