"""Events as bytes: msgpack, each event an array that begins with its kind. A reader of an older version's bytes
fills what they lack with the event's defaults; one of a later version's passes over fields that it does not know."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import msgspec

from services.core import errors
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

ERRORS = {kind.outcome: kind for kind in errors.HeadraceError.__subclasses__()}

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode(events: Sequence[Event]) -> bytes:
    return _encoder.encode([_PACK[type(event)](event) for event in events])


def decode(data: bytes) -> list[Event]:
    """Raises ValueError for bytes that `encode` did not make."""
    try:
        return [_UNPACK[kind](*fields[: _FIELDS[kind]]) for kind, *fields in _decoder.decode(data)]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"not a journal's events: {type(error).__name__}") from None


def _pack_delta(event: Delta) -> tuple[Any, ...]:
    if event.logprobs:
        return 1, event.text, event.ids, event.choice, event.logprobs
    return (1, event.text, event.ids, event.choice) if event.choice else (1, event.text, event.ids)


def _delta(text: str, ids: list[int], choice: int = 0, scores: Sequence[Any] = ()) -> Delta:
    named = [Logprob(token, score, tuple(map(tuple, top))) for token, score, top in scores]
    return Delta(text, ids, choice, named or ())


def _pack_failed(event: Failed) -> tuple[Any, ...]:
    error = event.error
    wrong = error.violations if isinstance(error, errors.InvalidRequest) else ()
    return 9, error.outcome, error.message, error.retry_after, [(v.field, v.description) for v in wrong]


def _failed(outcome: str, message: str, retry_after: float | None, wrong: Sequence[Sequence[str]]) -> Failed:
    if wrong:
        return Failed(errors.InvalidRequest(*(errors.Violation(*each) for each in wrong)))
    return Failed(ERRORS[outcome](message, retry_after=retry_after))  # type: ignore[index]


def _endings(endings: Sequence[Ending]) -> list[tuple[str, str]]:
    return [(ending.reason, ending.stop_sequence) for ending in endings]


def _ended(endings: Sequence[Sequence[str]]) -> tuple[Ending, ...]:
    return tuple(Ending(FinishReason(reason), stop) for reason, stop in endings)


_PACK: dict[type[Event], Callable[[Any], tuple[Any, ...]]] = {
    Started: lambda e: (0, e.turn, e.model, e.prompt_tokens, e.resumable, e.messages_dropped),
    Delta: _pack_delta,
    ReasoningDelta: lambda e: (2, e.text, e.ids, e.choice),
    CallDelta: lambda e: (3, e.index, e.arguments, e.ids, e.choice, e.id, e.name),
    Restarted: lambda e: (4, e.choice, e.held),
    TakenOver: lambda e: (5, e.epoch),
    Answered: lambda e: (6, _endings(e.endings)),
    Usage: lambda e: (7, e.prompt, e.completion, e.cached, e.reasoning, e.migrations, e.takeovers),
    Migrated: lambda e: (10,),
    Waiting: lambda e: (11, e.reason, e.held_ms, e.position, e.choice),
    Finished: lambda e: (8, _endings(e.endings), e.session_version, e.durability),
    Failed: _pack_failed,
}
_UNPACK: dict[int, Callable[..., Event]] = {
    0: Started,
    1: _delta,
    2: ReasoningDelta,
    3: CallDelta,
    4: Restarted,
    5: TakenOver,
    6: lambda endings: Answered(_ended(endings)),
    7: Usage,
    8: lambda endings, version, durability="unasked": Finished(
        _ended(endings), version, Durability(durability)
    ),
    9: _failed,
    10: Migrated,
    11: lambda reason, held_ms, position, choice=0: Waiting(WaitReason(reason), held_ms, position, choice),
}
_FIELDS = {kind: len(signature(make).parameters) for kind, make in _UNPACK.items()}
