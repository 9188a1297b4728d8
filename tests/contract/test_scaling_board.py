"""What gateways and the autoscaler tell each other, through a real Valkey: each side reads what the other writes."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from redis.asyncio import Redis

from cluster.serving import names
from cluster.serving.ledger import Ledger
from services.backend.memory import MemoryScaling
from services.backend.redis import RedisScaling, slug
from services.backend.scaling import FORGOTTEN, Change, Demand, Scaling, Scalings
from services.core.clock import SystemClock
from services.core.errors import StoreAway
from services.gateway.waiting import WaitingRoom
from services.store.connect import connect
from tests.support.clock import FakeClock
from tests.support.gateway import until
from tests.support.valkey import free_port

MODEL = "org/model"
DECISION = {
    "desired": 3,
    "current": 2,
    "reason": "steady",
    "held_because": "delay",
    "wanted": {"turns": 2.5, "held": 0.0},
    "at_ms": 1_800_000_000_000,
    "memory": {"whatever": 1},
}
NOTHING = Demand(0, 0)


@contextmanager
def autoscaler(url: str) -> Iterator[Ledger]:
    ledger = Ledger(MODEL, url)
    ledger.start()
    try:
        yield ledger
    finally:
        ledger.close()
        ledger.join()


def now() -> float:
    return SystemClock().now()


async def test_the_autoscaler_hears_what_all_gateways_hold(valkey_client: Redis, valkey_url: str) -> None:
    board = RedisScaling(valkey_client)
    with autoscaler(valkey_url) as ledger:
        await board.publish("g1", now(), {MODEL: Demand(2, 1), "other": Demand(50, 0)})
        await board.publish("g2", now(), {MODEL: Demand(4, 0)})
        await until(lambda: ledger.held == 7)
        await board.publish("g1", now(), {MODEL: None, "other": None})
        await until(lambda: ledger.held == 4)
        assert 0 < await valkey_client.ttl(names.held_key(MODEL)) <= 60


async def test_gateways_read_what_the_autoscaler_decides(valkey_client: Redis, valkey_url: str) -> None:
    board = RedisScaling(valkey_client)
    assert await board.read([MODEL]) == {}
    with autoscaler(valkey_url) as ledger:
        ledger.tell(DECISION, DECISION | {"before": 1, "after": 2, "reason": "turns"})
        ledger.tell(DECISION, DECISION | {"before": 2, "after": 3, "reason": "held"})
        async with asyncio.timeout(10):
            while len(getattr((await board.read([MODEL])).get(MODEL), "changes", ())) < 2:
                await asyncio.sleep(0.05)
    found = await board.read(["other", MODEL])
    changes = (Change(2, 3, "held", 1.8e9), Change(1, 2, "turns", 1.8e9))
    wanted = {"turns": 2.5, "held": 0.0}
    assert found == {MODEL: Scaling(3, 2, "steady", "delay", wanted, 1.8e9, changes)}


@pytest.mark.parametrize("junk", ["{", "[]", '{"desired": 1}', json.dumps(DECISION | {"wanted": 3})])
async def test_a_decision_of_another_version_hides_nothing_else(valkey_client: Redis, junk: str) -> None:
    await valkey_client.set(names.decision_key("new"), junk)
    await valkey_client.set(names.decision_key(MODEL), json.dumps(DECISION))
    assert list(await RedisScaling(valkey_client).read(["new", MODEL])) == [MODEL]


def test_both_sides_call_a_model_the_same() -> None:
    assert [slug(name) for name in (MODEL, "a b:c", "x_1.2-3")] == [
        names.slug(name) for name in (MODEL, "a b:c", "x_1.2-3")
    ]


@asynccontextmanager
async def watching(scalings: Scalings) -> AsyncIterator[None]:
    task = asyncio.create_task(scalings.watch())
    try:
        yield
    finally:
        task.cancel()


async def test_the_first_turn_that_waits_is_told_at_once() -> None:
    board, clock = MemoryScaling(), FakeClock()
    room = WaitingRoom(4, clock)
    scalings = Scalings(
        board, "g", [MODEL], lambda m: Demand(room.held(m), room.refused(m)), clock, period=3600
    )
    room.on_demand = scalings.stir
    async with watching(scalings):
        await until(lambda: board.demands == {"g": {MODEL: NOTHING}})
        with room.place(MODEL, "acme", 1):
            await until(lambda: board.demands == {"g": {MODEL: Demand(1, 0)}})
        room.refuse(MODEL)
        await until(lambda: board.demands == {"g": {MODEL: Demand(0, 1)}})
    await scalings.leave()
    assert board.demands == {"g": {}}


async def test_an_old_decision_says_nothing_and_a_store_that_is_away_forgets_none() -> None:
    board, clock = MemoryScaling(), FakeClock()
    board.scalings[MODEL] = Scaling(1, 1, "steady", "", {}, clock.now())
    scalings = Scalings(board, "g", [MODEL], lambda _: NOTHING, clock)
    await scalings.refresh()
    clock.advance(3)
    assert (told := scalings.of(MODEL)) is not None and told[1] == 3
    scalings.board = RedisScaling(client := connect(f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(StoreAway):
        await scalings.board.read([MODEL])
    await scalings.refresh()
    assert scalings.of(MODEL) is not None
    clock.advance(FORGOTTEN)
    assert scalings.of(MODEL) is None
    await client.aclose()
