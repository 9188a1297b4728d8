"""What of a reader's position still stands when its turn has changed hands."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.core.clock import SystemClock
from services.core.events import Delta, TakenOver
from services.journal.memory_store import MemoryJournalStore
from services.journal.mirror import Mirror, Mirrors, standing

EVENTS = [
    *[Delta("x", [i]) for i in range(40)],
    TakenOver(1),
    *[Delta("y", [i]) for i in range(9)],
    TakenOver(2),
]


@pytest.mark.parametrize(
    ("epoch", "seq", "stands"),
    [(0, 40, 40), (0, 41, 40), (0, 60, 40), (1, 41, 41), (1, 50, 50), (1, 51, 50), (2, 51, 51), (2, 99, 99)],
)
def test_what_an_older_epoch_said_beyond_a_takeover_does_not_stand(epoch: int, seq: int, stands: int) -> None:
    assert standing(EVENTS, epoch, seq) == stands
    for known in (0, 10, 40):
        assert standing(EVENTS, epoch, seq, known if known <= stands else 0) == stands


class Counted(list[Any]):
    looked = 0

    def __getitem__(self, at: Any) -> Any:
        self.looked += 1
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Any]:
        self.looked += len(self)
        return super().__iter__()


def test_waiting_for_a_position_looks_at_each_event_once() -> None:
    """Anybody may ask for a position far beyond a long turn's end, and is woken by each of its tokens."""
    events = Counted([Delta("x", [i]) for i in range(1000)])
    known = 0
    for _ in range(100):
        standing(events, 0, 2**40, known)
        known = len(events)
        events.append(Delta("x", [0]))
    assert events.looked < 1200


def test_a_mirror_that_ends_leaves_the_one_that_took_its_place() -> None:
    mirrors = Mirrors(MemoryJournalStore(SystemClock()), SystemClock(), lambda work, name: None)  # type: ignore[arg-type, return-value]
    old, new = Mirror("turn_1", "acme"), Mirror("turn_1", "acme")
    mirrors._all["turn_1"] = new
    mirrors._end(old, None)
    assert mirrors._all == {"turn_1": new} and old.journal.left and not new.journal.left
