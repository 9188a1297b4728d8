"""The breaker, on a clock that the test moves."""

import asyncio
import timeit

import pytest
from redis import exceptions

from services.core.errors import StoreAway
from services.store.breaker import FAILURES, PROBE, QUIET, Breaker, State
from tests.support.clock import FakeClock


class Line:
    """A breaker with its clock and the changes that it told of."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.heard: list[State] = []
        self.breaker = Breaker(self.clock, on_change=self.heard.append)

    def call(self, error: BaseException | None = None) -> None:
        with self.breaker:
            if error is not None:
                raise error

    def fail(self, times: int = 1, error: BaseException | None = None) -> None:
        for _ in range(times):
            with pytest.raises(type(error or exceptions.TimeoutError())):
                self.call(error or exceptions.TimeoutError("silent"))


def test_it_opens_after_so_many_silences_in_a_row() -> None:
    line = Line()
    line.fail(FAILURES - 1)
    line.call()
    line.clock.advance(QUIET)
    line.fail(FAILURES - 1)
    assert line.breaker.state is State.CLOSED
    line.fail()
    assert (line.breaker.state, line.heard) == (State.OPEN, [State.OPEN])
    with pytest.raises(StoreAway):
        line.call()


def test_calls_that_come_late_while_others_are_answered_do_not_open_it() -> None:
    line = Line()
    for _ in range(FAILURES * 3):
        line.fail()
        line.call()
        line.clock.advance(QUIET / 2)
        line.fail()
    assert line.breaker.state is State.CLOSED
    line.call()
    line.fail(FAILURES, exceptions.ConnectionError("refused"))
    assert line.breaker.state is State.OPEN


def test_an_open_one_lets_one_probe_through_at_a_time() -> None:
    line = Line()
    line.fail(FAILURES)
    for _ in range(3):
        line.clock.advance(PROBE)
        line.fail()  # the probe reaches the store
        with pytest.raises(StoreAway):
            line.call()
    assert line.heard == [State.OPEN]


def test_it_closes_at_the_first_answer() -> None:
    line = Line()
    line.fail(FAILURES)
    line.clock.advance(PROBE)
    line.call()
    line.call()
    assert line.heard == [State.OPEN, State.CLOSED]
    line.fail(FAILURES - 1)
    assert line.breaker.state is State.CLOSED


def test_a_late_answer_to_an_earlier_call_closes_it_too() -> None:
    line = Line()
    with line.breaker:
        line.fail(FAILURES)
        assert line.breaker.state is State.OPEN
    assert line.breaker.state is State.CLOSED


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ResponseError("WRONGTYPE"),
        exceptions.OutOfMemoryError("full"),
        exceptions.NoScriptError("none"),
        exceptions.ReadOnlyError("replica"),
    ],
)
def test_a_refusal_is_an_answer(error: Exception) -> None:
    line = Line()
    line.fail(FAILURES - 1)
    line.fail(1, error)
    line.fail(FAILURES - 1)
    assert line.breaker.state is State.CLOSED


@pytest.mark.parametrize(
    "error",
    [
        OSError("unreachable"),
        TimeoutError(),
        exceptions.BusyLoadingError("LOADING"),
        exceptions.ClusterDownError("down"),
        exceptions.MasterDownError("down"),
    ],
)
def test_a_store_that_says_not_now_is_silent(error: Exception) -> None:
    line = Line()
    line.fail(FAILURES, error)
    assert line.breaker.state is State.OPEN


def test_a_cancelled_probe_decides_nothing() -> None:
    line = Line()
    line.fail(FAILURES)
    line.clock.advance(PROBE)
    line.fail(1, asyncio.CancelledError())
    assert line.breaker.state is State.OPEN
    line.clock.advance(PROBE)
    line.call()
    assert line.breaker.state is State.CLOSED


def test_it_costs_under_a_microsecond_on_the_good_path() -> None:
    breaker = Breaker(FakeClock())

    def pass_through() -> None:
        with breaker:
            pass

    assert min(timeit.repeat(pass_through, number=10_000, repeat=7)) / 10_000 < 1e-6
