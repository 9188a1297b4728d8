"""Where turns go: affinity within bounds, cold replicas, ejected ones, and those that say nothing."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.load import (
    COLD_SHARE,
    EPSILON,
    SPARE,
    STALE_LOAD,
    WARM_AFTER,
    bounds,
    least_wait,
    predicted_wait,
    warmth,
)
from services.routing.router import PATIENCE, Choice, Reason, Router, Wish
from services.routing.standing import FAILURES, FIRST_BAN, FORGIVEN_AFTER, LAST_BAN, Standings

NOW = 1000.0
KEY = Wish(b"k" * 16)


@dataclass(slots=True)
class Replica:
    name: str
    turns: int = 0
    capacity: int = 64
    queued_tokens: int = 0
    kv_use: float = 0.0
    ready: bool = True
    up_at: float = 0.0
    asked_at: float = float("inf")
    pace: float = 0.0


def replicas(count: int, **fields: int) -> list[Replica]:
    return [Replica(f"r{i}", **fields) for i in range(count)]


def chosen(choice: Choice[Replica] | None) -> tuple[str, Reason]:
    assert choice is not None
    return choice.replica.name, choice.reason


def flood(
    router: Router, some: list[Replica], turns: int, now: float = NOW, wish: Wish = KEY
) -> list[Reason]:
    """Sends turns that never end."""
    reasons = []
    for _ in range(turns):
        choice = router.choose(some, wish, now)
        assert choice is not None
        choice.replica.turns += 1
        reasons.append(choice.reason)
    return reasons


REPLICA = st.builds(
    Replica,
    st.uuids().map(str),
    turns=st.integers(0, 300),
    capacity=st.integers(1, 256),
    queued_tokens=st.integers(0, 200_000),
    kv_use=st.floats(0, 1),
    ready=st.booleans(),
    up_at=st.floats(0, NOW),
    asked_at=st.floats(NOW - 4, NOW) | st.just(float("inf")),
)
WISH = st.builds(Wish, st.none() | st.binary(min_size=16, max_size=16), st.booleans())


@given(st.lists(REPLICA, max_size=8), WISH)
def test_a_replica_that_is_full_not_ready_or_stale_is_never_chosen(some: list[Replica], wish: Wish) -> None:
    choice = Router().choose(some, wish, NOW)
    roomy = [r for r in some if r.ready and r.turns < r.capacity and NOW - r.asked_at < STALE_LOAD]
    assert (choice is None) == (not roomy)
    assert choice is None or choice.replica in roomy


@given(st.lists(st.integers(1, 256), min_size=1, max_size=8), st.integers(1, 300))
def test_no_replica_holds_more_than_its_bound_of_one_keys_turns(capacities: list[int], turns: int) -> None:
    some = [Replica(f"r{i}", capacity=capacity) for i, capacity in enumerate(capacities)]
    turns = min(turns, sum(capacities))
    flood(Router(), some, turns)
    for replica in some:
        share = turns * replica.capacity / sum(capacities)
        assert replica.turns <= max((1 + EPSILON) * share, SPARE * replica.capacity) + 1


def test_turns_that_share_a_prompt_go_where_it_is_cached_until_that_one_is_too_busy() -> None:
    some = replicas(4)
    reasons = flood(Router(), some, 40)
    assert reasons[0] is Reason.PREFIX and reasons[2] is Reason.SPILL
    assert sorted(r.turns for r in some)[-1] <= 1.25 * 10 + 1


def test_keys_spread_over_the_replicas() -> None:
    some, router = replicas(8, capacity=4096), Router()
    for i in range(4000):
        flood(router, some, 1, wish=Wish(i.to_bytes(16, "big")))
    assert max(r.turns for r in some) <= 1.25 * 500 + 1


def test_a_short_prompt_goes_to_the_least_wait() -> None:
    some = [Replica("a", turns=3), Replica("b", turns=2), Replica("c", turns=2, kv_use=0.5)]
    assert chosen(Router().choose(some, Wish(), NOW)) == ("b", Reason.LEAST_WAIT)


def test_a_long_queue_of_prompts_is_a_wait_although_it_is_one_turn() -> None:
    busy, full = Replica("busy", turns=1, queued_tokens=100_000), Replica("full", turns=10)
    assert least_wait([busy, full]) is full


@given(REPLICA)
def test_more_work_never_predicts_a_shorter_wait(replica: Replica) -> None:
    before = predicted_wait(replica)
    replica.queued_tokens += 1000
    assert predicted_wait(replica) > before
    replica.turns += 1
    assert predicted_wait(replica) > before


def test_a_cache_is_not_worth_more_than_so_long_a_wait() -> None:
    some, router = replicas(3), Router()
    home, _ = chosen(router.choose(some, KEY, NOW))
    [holder] = [r for r in some if r.name == home]
    holder.queued_tokens = int(10_000 * PATIENCE) - 1
    assert chosen(router.choose(some, KEY, NOW)) == (home, Reason.PREFIX)
    holder.queued_tokens += 2
    assert chosen(router.choose(some, KEY, NOW))[1] is Reason.SPILL


def test_a_session_returns_to_where_its_last_turn_went() -> None:
    router, some = Router(), replicas(4)
    wish = router.wish("salt", [1, 2, 3], "session")
    home, reason = chosen(router.choose(some, wish, NOW))
    assert reason is Reason.SESSION
    [holder] = [r for r in some if r.name == home]
    holder.turns = 60
    elsewhere, reason = chosen(router.choose(some, wish, NOW))
    assert elsewhere != home and reason is Reason.SPILL
    holder.turns = 0
    assert chosen(router.choose(some, wish, NOW)) == (elsewhere, Reason.SESSION)
    assert chosen(Router().choose(some, wish, NOW)) == (home, Reason.SESSION)


def test_sessions_of_two_tenants_with_one_name_have_keys_of_their_own() -> None:
    assert Router().wish("a", [], "s").key != Router().wish("b", [], "s").key


@given(st.floats(0, 2 * WARM_AFTER))
def test_a_cold_replica_warms_up_in_a_straight_line(age: float) -> None:
    expected = min(1.0, COLD_SHARE + (1 - COLD_SHARE) * age / WARM_AFTER)
    assert warmth(NOW - age, NOW) == pytest.approx(expected)


@pytest.mark.parametrize("wish", [KEY, Wish()])
def test_a_replica_that_comes_up_is_not_flooded_although_it_is_empty(wish: Wish) -> None:
    some = [*replicas(3, turns=20, capacity=64), Replica("new", capacity=64, up_at=NOW)]
    router = Router()
    flood(router, some, 10, wish=wish)
    assert some[3].turns <= 3
    flood(router, some, 60, now=NOW + WARM_AFTER, wish=wish)
    assert some[3].turns > 20


def test_replicas_that_came_up_together_share_alike() -> None:
    some = [Replica(f"r{i}", up_at=NOW) for i in range(4)]
    flood(Router(), some, 40, wish=Wish())
    assert [r.turns for r in some] == [10, 10, 10, 10]


@given(st.lists(REPLICA, min_size=1, max_size=8))
def test_bounds_always_leave_room_for_one_more_turn(some: list[Replica]) -> None:
    for replica in some:
        replica.turns = min(replica.turns, replica.capacity - 1)
    limits = bounds(some, {replica.name: warmth(replica.up_at, NOW) for replica in some})
    assert all(1 <= limits[r.name] <= r.capacity for r in some)
    assert sum(limits.values()) > sum(r.turns for r in some) or any(
        limits[r.name] == r.capacity for r in some
    )


def fail(standings: Standings, replica: Replica, some: list[Replica], now: float) -> list[bool]:
    return [standings.failed(replica, some, now) for _ in range(FAILURES)]


def test_failures_in_a_row_eject_and_a_good_turn_between_them_does_not() -> None:
    standings, some = Standings(), replicas(2)
    for _ in range(10):
        standings.failed(some[0], some, NOW)
        standings.failed(some[0], some, NOW)
        standings.served(some[0], some, NOW)
    assert not standings.ejected("r0", NOW)
    assert fail(standings, some[0], some, NOW) == [False, False, True]
    assert standings.ejected("r0", NOW) and not standings.ejected("r0", NOW + FIRST_BAN)


def test_an_ejection_is_twice_as_long_as_the_last_until_it_is_forgiven() -> None:
    standings, some, now, bans = Standings(), replicas(2), NOW, list[float]()
    for _ in range(7):
        fail(standings, some[0], some, now)
        bans.append(standings.back_at("r0") - now)
        now = standings.back_at("r0")
    assert bans == [1, 2, 4, 8, 16, LAST_BAN, LAST_BAN]
    now += FORGIVEN_AFTER + 1
    fail(standings, some[0], some, now)
    assert standings.back_at("r0") - now == pytest.approx(FIRST_BAN)


def test_all_turns_of_a_lost_replica_are_one_ejection() -> None:
    standings, some = Standings(), replicas(4)
    assert [standings.failed(some[0], some, NOW) for _ in range(40)].count(True) == 1
    after = standings.back_at("r0")
    assert after - NOW == FIRST_BAN and not standings.failed(some[0], some, after)


@given(st.integers(1, 9))
def test_at_most_half_of_the_replicas_are_out(count: int) -> None:
    standings, some = Standings(), replicas(count)
    for replica in some:
        fail(standings, replica, some, NOW)
    assert sum(standings.ejected(r.name, NOW) for r in some) == count // 2


def test_a_replica_that_crawls_is_ejected_and_one_that_is_alone_never() -> None:
    standings, some = Standings(), replicas(4)
    for replica in some:
        replica.pace = 0.03
    assert not standings.served(some[0], some, NOW)
    some[0].pace = 0.1
    assert standings.served(some[0], some, NOW)
    assert not Standings().served(some[0], some[:1], NOW)


def test_an_ejected_replica_gets_nothing_comes_back_cold_and_is_the_last_resort() -> None:
    router, some = Router(), replicas(3, turns=20)
    for _ in range(FAILURES):
        router.failed(some[0], some, NOW)
    some[0].turns = 0
    flood(router, some, 10)
    assert some[0].turns == 0
    flood(router, some, 10, now=NOW + FIRST_BAN, wish=Wish())
    assert 0 < some[0].turns <= 4
    other = Router()
    for _ in range(FAILURES):
        other.failed(some[0], some, NOW)
    some[1].turns = some[2].turns = 64
    assert chosen(other.choose(some, KEY, NOW)) == ("r0", Reason.LAST_RESORT)
