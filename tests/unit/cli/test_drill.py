"""The arithmetic of a drill: a token that is lost, repeated or out of order does not pass."""

from dataclasses import replace

import pytest

from services.cli.history import History, Kill, judge, wrong
from services.client import Delta, Event, Finished, Message, Rewind, Started, Usage, Used

KILL = Kill("replica", 4711, gone=True)
MOVED = Usage(completion_tokens=3, migrations=1)
WHOLE: list[Event] = [
    Started(1, "t", "m", 5),
    Delta(2, "a ", 1),
    Delta(3, "b ", 1),
    Delta(4, "c", 1),
    Used(5, MOVED),
    Finished(6, "length"),
]


def heard(events: list[Event], number: int = 0, epoch: int = 0) -> History:
    history = History(number)
    for at, event in enumerate(events):
        history.hear(event, (epoch, event.seq), now=float(at))
    return history


def without(place: int) -> list[Event]:
    return [event for at, event in enumerate(WHOLE) if at != place]


def fault(events: list[Event]) -> str:
    return wrong(heard(events), 3, heard(WHOLE))


def test_a_whole_stream_passes() -> None:
    history = heard(WHOLE)
    assert (wrong(history, 3, heard(WHOLE)), history.text, history.moves, history.pause) == (
        "",
        "a b c",
        1,
        1.0,
    )


@pytest.mark.parametrize(
    ("events", "what"),
    [
        (without(2), "1 tokens lost"),
        (
            [*WHOLE[:3], Delta(4, "b ", 1), Delta(5, "c", 1), Used(6, MOVED), Finished(7, "length")],
            "1 tokens repeated",
        ),
        ([*WHOLE[:2], WHOLE[3], WHOLE[2], *WHOLE[4:]], "1 events out of order"),
        ([*WHOLE[:3], Delta(4, "x", 1), *WHOLE[4:]], "other text than its twin's from character 4 on"),
        ([*WHOLE[:4], Used(5, Usage(completion_tokens=2)), WHOLE[-1]], "2 tokens sampled instead of 3"),
        (without(4), "no usage came"),
    ],
)
def test_what_is_not_whole_is_named(events: list[Event], what: str) -> None:
    assert fault(events) == what


def test_a_rewind_replaces_the_text_and_the_count_rests_on_the_usage() -> None:
    rewound: list[Event] = [*WHOLE[:4], Rewind(2, (Message("assistant", "a "),)), *WHOLE[2:]]
    history = heard(rewound)
    assert (history.text, history.tokens, wrong(history, 3, heard(WHOLE))) == ("a b c", 5, "")


def test_a_gateway_that_took_over_counts_on_from_its_own_epoch() -> None:
    history = heard(WHOLE[:4])
    history.hear(Delta(3, "", 0), (1, 3), now=9.0)
    assert history.disorder == 0


def test_the_pause_that_lasts_counts() -> None:
    history = heard(WHOLE[:4])
    assert history.pause_at(33.0) == 30.0


def test_the_verdict_is_one_line() -> None:
    verdict = judge([heard(WHOLE), heard(WHOLE, 1)], 3, [heard(WHOLE), heard(WHOLE, 1)], [KILL])
    assert verdict.good
    assert verdict.line() == (
        "2 of 2 streams finished; 0 tokens lost, repeated or reordered (compared with unfailed twins); "
        "2 went on elsewhere; longest pause 1.00 s; 1 replica killed (pid 4711), proof: gone"
    )


def test_a_drill_fails_with_any_stream_and_with_a_kill_that_did_not_happen() -> None:
    good, lost = heard(WHOLE), heard(without(2))
    broken = heard(WHOLE[:3])
    broken.fail("the endpoint is gone")
    still = heard([*WHOLE[:4], Used(5, replace(MOVED, migrations=0)), WHOLE[-1]])
    assert judge([good], 3, [], [KILL]).good
    for histories, kills in (
        ([good, lost], [KILL]),
        ([good, broken], [KILL]),
        ([still], [KILL]),
        ([good], [replace(KILL, gone=False)]),
        ([good], []),
    ):
        assert not judge([replace(h, number=at) for at, h in enumerate(histories)], 3, [], kills).good
    assert judge([broken], 3, [], [KILL]).faults == {0: "the endpoint is gone"}
