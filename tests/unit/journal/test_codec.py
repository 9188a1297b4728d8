"""Events come back from bytes as they went in, whatever they say."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import HeadraceError, InvalidRequest, Violation
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
    ReasoningDelta,
    Restarted,
    Started,
    TakenOver,
    Usage,
    Waiting,
    WaitReason,
)
from services.journal import codec

DELTA = 1  # kind
TEXT = st.text(max_size=8)
COUNT = st.integers(0, 2**31)
IDS = st.lists(COUNT, max_size=4)
SCORE = st.floats(-1e4, 0, width=32)
TOP = st.lists(st.tuples(st.binary(max_size=4), SCORE), max_size=2).map(tuple)
ENDINGS = st.lists(st.builds(Ending, st.sampled_from(FinishReason), TEXT), min_size=1, max_size=3).map(tuple)


def _error(kind: type[HeadraceError], text: str, retry: float | None) -> HeadraceError:
    return kind(text, retry_after=retry)


KINDS = [kind for kind in codec.ERRORS.values() if kind is not InvalidRequest]
ERRORS = st.builds(_error, st.sampled_from(KINDS), TEXT, st.none() | st.floats(0, 60))
REFUSALS = st.lists(st.builds(Violation, TEXT, TEXT), min_size=1, max_size=3).map(
    lambda v: InvalidRequest(*v)
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Waiting, st.sampled_from(WaitReason), COUNT, COUNT, COUNT),
    st.builds(Started, TEXT, TEXT, COUNT, st.booleans(), COUNT),
    st.builds(
        Delta, TEXT, IDS, COUNT, st.lists(st.builds(Logprob, st.binary(max_size=4), SCORE, TOP), max_size=2)
    ),
    st.builds(ReasoningDelta, TEXT, IDS, COUNT),
    st.builds(CallDelta, COUNT, TEXT, IDS, COUNT, TEXT, TEXT),
    st.builds(Restarted, COUNT, st.booleans()),
    st.builds(TakenOver, COUNT),
    st.builds(Answered, ENDINGS),
    st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT),
    st.builds(Finished, ENDINGS, COUNT, st.sampled_from(Durability)),
    st.builds(Failed, ERRORS | REFUSALS),
)


def plain(event: Event) -> object:
    """An event as values that compare."""
    if isinstance(event, Failed):
        error = event.error
        return type(error), error.message, error.retry_after, getattr(error, "violations", ())
    return (event.text, event.ids, event.choice, list(event.logprobs)) if isinstance(event, Delta) else event


@given(st.lists(EVENTS, max_size=6))
def test_what_was_written_is_read(events: list[Event]) -> None:
    assert list(map(plain, codec.decode(codec.encode(events)))) == list(map(plain, events))


@given(st.binary(max_size=40))
def test_other_bytes_are_refused_or_read_but_never_crash(data: bytes) -> None:
    try:
        codec.decode(data)
    except ValueError as refusal:
        assert "journal" in str(refusal)


def test_a_newer_kind_of_event_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="KeyError"):
        codec.decode(b"\x91\x92\x63\x01")


@given(st.lists(EVENTS, max_size=6))
def test_fields_of_a_later_version_are_passed_over(events: list[Event]) -> None:
    written = msgspec.msgpack.decode(codec.encode(events))
    for event in written:
        if event[0] == DELTA:  # leaves out what has its default, if nothing follows
            event += [0, ()][len(event) - 3 :]
        event += ["new", 7]
    assert list(map(plain, codec.decode(msgspec.msgpack.encode(written)))) == list(map(plain, events))
