"""Who is next in the waiting room, and how many it takes."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.waiting import LATELY, Place, Queue, WaitingRoom
from tests.support.clock import FakeClock


def entered(*tenants: str) -> tuple[Queue, list[Place]]:
    queue, places = Queue(), [Place(tenant, number) for number, tenant in enumerate(tenants)]
    for place in places:
        queue.enter(place)
    return queue, places


def served(queue: Queue, places: list[Place]) -> Iterator[Place]:
    """The places in the order in which they are called."""
    while len(queue):
        [first] = [place for place in places if place.first.is_set() and not place.served]
        first.served = True
        yield first
        queue.leave(first)


def test_tenants_are_taken_in_turn_however_many_orders_one_of_them_has() -> None:
    queue, places = entered("a", "a", "a", "a", "b", "b", "c")
    assert [place.tenant for place in served(queue, places)] == ["a", "b", "c", "a", "b", "a", "a"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_the_position_that_is_told_is_the_place_in_the_order_of_service(tenants: list[str]) -> None:
    queue, places = entered(*tenants)
    told = {place.number: queue.position(place) for place in places}
    order = [place.number for place in served(queue, places)]
    assert [told[number] for number in order] == list(range(1, len(tenants) + 1))


def test_who_gives_up_costs_his_tenant_no_turn() -> None:
    queue, places = entered("a", "a", "b")
    queue.leave(places[0])
    assert [place.number for place in served(queue, places[1:])] == [1, 2]


def test_an_order_that_was_full_after_all_comes_back_before_later_ones_of_its_tenant() -> None:
    queue, places = entered("a", "a")
    first = next(served(queue, places))
    queue.leave(first)
    again = Place("a", first.number)
    queue.enter(again)
    assert again.first.is_set() and not places[1].first.is_set()


def test_one_tenant_has_three_quarters_of_the_room_and_all_have_all_of_it() -> None:
    room = WaitingRoom(4, FakeClock())
    with ExitStack() as stack:
        for number in range(3):
            assert room.admits("a")
            stack.enter_context(room.place("m", "a", number))
        assert not room.admits("a") and room.admits("b")
        stack.enter_context(room.place("m", "b", 4))
        assert not room.admits("b")
    assert room.admits("a") and room.held("m") == 0


def test_a_refusal_counts_as_demand_for_some_seconds() -> None:
    clock = FakeClock()
    room, heard = WaitingRoom(4, clock), []
    room.on_demand = lambda: heard.append(clock.monotonic())
    room.refuse("m")
    room.refuse("m")
    assert (room.refused("m"), room.refused("other"), len(heard)) == (2, 0, 1)
    clock.advance(LATELY + 1)
    assert room.refused("m") == 0
    room.refuse("m")
    assert len(heard) == 2


async def test_a_call_that_does_not_come_ends_the_wait() -> None:
    _, places = entered("a", "b")
    await places[0].called(60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await places[1].called(60)
    await places[1].called(0.001)
    assert not places[1].first.is_set()
