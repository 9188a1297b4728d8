"""How long and how often a broken call is tried again, on a clock of the test's own."""

from dataclasses import dataclass, field

import grpc
import pytest

from services.client import HeadraceError, Resume
from services.client.retry import Budget, Tries

LOST = HeadraceError("lost", code=grpc.StatusCode.UNAVAILABLE)


@dataclass(slots=True)
class Time:
    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def how(self, **other: float) -> Resume:
        return Resume(clock=lambda: self.now, sleep=self.sleep, draw=lambda: 1.0, **other)  # type: ignore[arg-type]


async def until_given_up(tries: Tries, *, running: bool, at_most: int = 1000) -> int:
    for count in range(at_most):
        try:
            await tries.again(LOST, running=running)
        except HeadraceError:
            return count
    return at_most


async def test_pauses_double_up_to_the_longest_and_end_in_time() -> None:
    time = Time()
    await until_given_up(Tries(time.how(seconds=10), Budget(), None), running=True)
    assert time.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
    assert time.now < 10


async def test_an_endpoint_that_never_answered_is_given_up_sooner() -> None:
    time, budget = Time(), Budget()
    await until_given_up(Tries(time.how(), budget, None), running=False)
    assert time.now < 5
    budget.answered, begun = True, time.now
    await until_given_up(Tries(time.how(), budget, None), running=False)
    assert 20 < time.now - begun < 30


async def test_something_new_begins_the_count_anew() -> None:
    time = Time()
    tries = Tries(time.how(attempts=3), Budget(), None)
    for _ in range(10):
        assert await until_given_up(tries, running=True, at_most=3) == 3
        tries.moved()
    assert await until_given_up(tries, running=True) == 3


async def test_no_pause_goes_past_the_deadline_of_the_call() -> None:
    time = Time()
    tries = Tries(time.how(), Budget(), 1.0)
    await until_given_up(tries, running=True)
    assert time.now < 1.0
    left = tries.left()
    assert left is not None and left == pytest.approx(1.0 - time.now)


async def test_the_endpoints_own_delay_is_kept() -> None:
    time = Time()
    draining = HeadraceError("x", code=grpc.StatusCode.UNAVAILABLE, outcome="DRAINING", retry_after=0.5)
    await Tries(time.how(), Budget(), None).again(draining, running=True)
    assert time.slept == pytest.approx([0.6])


async def test_all_calls_of_a_client_retry_a_tenth_of_their_number() -> None:
    time, budget = Time(), Budget(answered=True)
    for _ in range(1000):
        await until_given_up(Tries(time.how(), budget, None), running=False)
    assert len(time.slept) <= 50 + 0.1 * 1000


async def test_a_turn_that_runs_is_read_again_with_an_empty_budget_but_slowly() -> None:
    time = Time()
    await until_given_up(Tries(time.how(seconds=10), Budget(tokens=0), None), running=True)
    assert time.slept == pytest.approx([2.0] * 4)


async def test_without_resume_the_first_loss_is_the_last() -> None:
    assert await until_given_up(Tries(None, Budget(), None), running=True) == 0
