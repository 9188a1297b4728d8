"""Each promise's checker can fail: hand-made histories that break it, and one that does not."""

from dataclasses import replace

import pytest

from tests.faults import promises
from tests.faults.history import Attempt, History, Position, Seen
from tests.faults.promises import Drain, Ledger, Order, Second
from tests.faults.table import TITLES, Finding, rows

pytestmark = pytest.mark.faults

TWIN = "one two three"
TWINS = {"count": TWIN}


def event(kind: str, seq: int, text: str = "", epoch: int = 0, at: float = 1.0, **fields: object) -> Seen:
    tokens = len(text.split()) if kind == "delta" else 0
    values = {"tokens": tokens, "turn": "turn_1" if kind == "started" else ""} | fields
    return Seen(at, Position(epoch, seq), kind, text, **values)  # type: ignore[arg-type]


GOOD = [
    event("started", 1),
    event("delta", 2, "one "),
    event("delta", 4, "two "),
    event("delta", 5, "three"),
    event("usage", 6, tokens=3),
    event("finished", 7),
]


def history(events: list[Seen], tenant: str = "acme", key: str = "k") -> History:
    made = History(tenant, "count", key, 0.0, 10.0, events=list(events))
    made.attempts.append(Attempt(0.0, "a", "StreamGenerate", Position(0, 0), "OK"))
    return made


def changed(index: int, **fields: object) -> list[Seen]:
    return [replace(one, **fields) if i == index else one for i, one in enumerate(GOOD)]  # type: ignore[arg-type]


TAKEN_OVER = [
    *GOOD[:3],
    event("rewind", 2, "one "),
    event("delta", 3, "two ", epoch=1),
    event("delta", 4, "three", epoch=1),
    event("finished", 5, epoch=1),
]


MOVED = [*GOOD[:2], *(replace(one, position=Position(1, one.position.seq)) for one in GOOD[2:])]


BEGUN_AGAIN = [
    GOOD[0],
    event("rewind", 0),
    event("started", 2, epoch=1),
    event("delta", 3, TWIN, epoch=1),
    event("finished", 4, epoch=1),
]


@pytest.mark.parametrize(
    "events",
    [GOOD, TAKEN_OVER, MOVED, BEGUN_AGAIN],
    ids=["calm", "rewound", "taken over", "rewound to before its beginning"],
)
def test_a_good_history_breaks_nothing(events: list[Seen]) -> None:
    good = [history(events)]
    assert promises.one_ending(good) == []
    assert promises.nothing_lost(good, TWINS) == []
    assert promises.one_execution(good) == []


@pytest.mark.parametrize(
    "events",
    [
        GOOD[:-1],
        [*GOOD, event("error", 8, outcome="INTERNAL")],
        [*GOOD, event("delta", 8)],
        changed(5, at=12.0),
    ],
    ids=["no ending", "two endings", "something after the ending", "late"],
)
def test_p1_sees_a_wrong_ending(events: list[Seen]) -> None:
    assert promises.one_ending([history(events)])


def test_p1_wants_an_ending_from_turns_that_never_began() -> None:
    silent = history([])
    silent.attempts[0].status = ""
    assert promises.one_ending([silent])


@pytest.mark.parametrize(
    "events",
    [
        [*GOOD[:2], *GOOD[3:]],
        [*GOOD[:3], event("delta", 5, "two "), *GOOD[3:]],
        [GOOD[0], GOOD[2], GOOD[1], *GOOD[3:]],
        changed(3, position=Position(0, 4)),
        changed(3, text="three four"),
        changed(3, text="thre"),
        changed(3, tokens=2),
        [*GOOD[:3], event("rewind", 2, "one "), *GOOD[3:]],
        [*GOOD[:3], event("rewind", 2, "two "), event("finished", 5, epoch=1)],
        [*GOOD[:3], event("delta", 3, "three", epoch=1)],
        [GOOD[0], *GOOD],
    ],
    ids=[
        "lost",
        "repeated",
        "reordered",
        "the same number twice",
        "more than the twin",
        "less than the twin",
        "miscounted",
        "rewind without another gateway",
        "rewind to something else",
        "back without a rewind",
        "started twice",
    ],
)
def test_p2_sees_a_broken_stream(events: list[Seen]) -> None:
    assert promises.nothing_lost([history(events)], TWINS)


def test_p3_sees_a_second_turn_a_second_answer_and_a_second_execution() -> None:
    other = history(changed(0, turn="turn_2"))
    assert promises.one_execution([history(GOOD), other])
    assert promises.one_execution([history(GOOD), history(changed(3, text="four"))])
    assert promises.one_execution([history(GOOD)], [Order("turn_1", 10, 1.0), Order("turn_1", 8, 2.0)])
    assert not promises.one_execution([history(GOOD)], [Order("turn_1", 10, 1.0), Order("turn_1", 12, 2.0)])
    assert not promises.one_execution([history(GOOD), history(changed(0, turn="turn_2"), tenant="other")])


def test_p4_sees_a_lost_turn() -> None:
    assert promises.acknowledged_survive(["a", "b"], ["a"]) and not promises.acknowledged_survive(
        ["a"], ["a", "b"]
    )


def test_p5_sees_a_canary_at_another_tenant_and_in_a_log() -> None:
    canaries = {"acme": "one two", "other": "mine"}
    assert not promises.no_strangers([history(GOOD)], canaries)
    assert promises.no_strangers([history(GOOD, tenant="other")], canaries)
    assert promises.no_strangers([], canaries, ["a log with mine in it"])


def seconds(surge: int, after: int) -> list[Second]:
    return [Second(i, surge) for i in range(10)] + [Second(10 + i, after) for i in range(10)]


def test_p6_sees_a_collapse_and_a_state_that_does_not_heal() -> None:
    assert not promises.overload(seconds(10, 10), 10, 10)
    assert promises.overload(seconds(5, 10), 10, 10)
    assert promises.overload(seconds(10, 3), 10, 10)


@pytest.mark.parametrize(
    "broken", [Ledger({"slots": 1}, 1, {"completed": 1}), Ledger({"slots": 0}, 2, {"completed": 1})]
)
def test_p7_sees_what_is_held_and_what_has_no_outcome(broken: Ledger) -> None:
    assert promises.conserved(broken)
    assert not promises.conserved(Ledger({"slots": 0}, 2, {"completed": 1, "cancelled": 1}))


@pytest.mark.parametrize("drain", [Drain(1, 2, 5, 0), Drain(0, 7, 5, 0), Drain(0, 2, 5, 1)])
def test_p8_sees_a_bad_exit(drain: Drain) -> None:
    assert promises.drained(drain, [])
    assert not promises.drained(Drain(0, 5.5, 5, 0), [history(GOOD)])
    assert promises.drained(Drain(0, 5.5, 5, 0), [history(GOOD[:-1])])


def test_p9_and_p10_see_a_slow_neighbour_and_content_in_a_log() -> None:
    assert promises.neighbours_unharmed([1.0] * 100, [1.3] * 100)
    assert not promises.neighbours_unharmed([1.0] * 100, [1.1] * 100)
    assert promises.no_content({"log": "key abc"}, ["abc"]) and not promises.no_content(
        {"log": "key"}, ["abc"]
    )


def test_a_row_is_the_worst_of_its_findings() -> None:
    findings = [
        Finding("F8", ("P1", "P2"), "pid gone", 4, {"takeover s": 3.1}),
        Finding("F8", ("P2", "P10"), "pid gone", 4, {"takeover s": 3.4}),
        Finding("F4", ("P1",), "pid gone", 2),
    ]
    assert rows(findings)[1] == [
        "F8",
        TITLES["F8"],
        "P1 P2 P10",
        "pid gone (2x)",
        "8",
        "takeover s 3.4",
    ]
