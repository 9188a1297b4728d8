"""The client of a cluster: redirects are followed, a dead master costs its own slots only, nothing is sent twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import CrossSlotTransactionError, ResponseError

from services.core.errors import StoreAway
from services.store.breaker import FAILURES
from services.store.check import check
from services.store.confirm import confirmed, confirmed_script
from services.store.connect import connect, store_errors
from tests.support.valkey import Valkey, ValkeyCluster, running_cluster, running_valkey

BUDGET = 0.25
SLACK = 0.5  # seconds that this machine may add to a budget


@pytest.fixture(scope="module")
def shared() -> Iterator[ValkeyCluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
async def client(shared: ValkeyCluster) -> AsyncIterator[Any]:
    """A client on an empty cluster whose slots are where they began."""
    client: Any = connect(shared.url, timeout=2.0)
    for master in await client.masters():
        await master.flushall()
    yield client
    await client.aclose()


def key_of(cluster: ValkeyCluster, index: int) -> str:
    """A key in the part of the slots that the index-th master began with."""
    count = len(cluster.masters)
    return next(k for k in map(str, range(1000)) if key_slot(k.encode()) * count // 16384 == index)


async def answered(call: Awaitable[Any]) -> bool:
    try:
        async with store_errors():
            await call
    except StoreAway:
        return False
    return True


async def test_a_pipeline_goes_to_every_owner_and_comes_back_in_order(client: Any) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for n in range(50):
            pipe.set(f"k{n}", n)
            pipe.get(f"k{n}")
        replies = await pipe.execute()
    assert replies[::2] == [True] * 50 and replies[1::2] == [b"%d" % n for n in range(50)]


async def test_one_refusal_in_a_pipeline_stands_in_its_place(client: Any) -> None:
    await client.set("text", "x")
    pipe = client.pipeline(transaction=False).get("text").sadd("text", "y").set("other", "z")
    replies = await pipe.execute(raise_on_error=False)
    assert replies[0] == b"x" and isinstance(replies[1], ResponseError) and replies[2] is True
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await client.pipeline(transaction=False).sadd("text", "y").execute()


async def test_a_transaction_stays_in_one_slot(client: Any) -> None:
    assert await client.pipeline().set("{a}1", "x").get("{a}1").execute() == [True, b"x"]
    with pytest.raises(CrossSlotTransactionError):
        await client.pipeline().set("a", "x").set("b", "x").execute()
    assert await client.pipeline().execute() == []


async def test_a_slot_that_moved_is_followed_by_commands_pipelines_and_transactions(
    shared: ValkeyCluster, client: Any
) -> None:
    calls = (
        lambda key: client.incr(key),
        lambda key: client.pipeline(transaction=False).incr(key).incr("other").execute(),
        lambda key: client.pipeline(transaction=True).incr(key).execute(),
        client.register_script("return redis.call('INCR', KEYS[1])"),
    )
    source, target = shared.masters[0], shared.masters[1]
    stem = key_of(shared, 0)
    slot = key_slot(stem.encode())
    for n, call in enumerate(calls):
        key = f"{{{stem}}}{n}"
        assert await client.get(key) is None
        with moved(shared, slot, source, target):
            await (call([key]) if n == 3 else call(key))
            assert target.ask("GET", key) == "1"
            target.ask("DEL", key)
        await until_owner(client, slot, source)


@contextmanager
def moved(cluster: ValkeyCluster, slot: int, source: Valkey, target: Valkey) -> Iterator[None]:
    assign(cluster, slot, target)
    try:
        yield
    finally:
        assign(cluster, slot, source)


def assign(cluster: ValkeyCluster, slot: int, owner: Valkey) -> None:
    id = owner.ask("CLUSTER", "MYID")
    for server in (owner, *(one for one in cluster.masters if one is not owner)):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", id)


async def until_owner(client: Any, slot: int, owner: Valkey) -> None:
    async with asyncio.timeout(5):
        while client._owners[slot].port != owner.port:
            await client._look_now()


async def test_a_slot_under_way_is_asked_for_at_its_next_owner(shared: ValkeyCluster, client: Any) -> None:
    source, target = shared.masters[0], shared.masters[1]
    key = key_of(shared, 0)
    slot = key_slot(key.encode())
    await client.get(key)
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
    try:
        assert await client.set(key, "x")
        assert await client.get(key) == b"x"
        assert await client.pipeline(transaction=False).get(key).set("other", "y").execute() == [b"x", True]
        assert client._owners[slot].port == source.port
    finally:
        for server in (source, target):
            server.ask("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_a_frozen_master_costs_its_own_slots_only(shared: ValkeyCluster) -> None:
    client: Any = connect(shared.url, timeout=BUDGET)
    mine, others = key_of(shared, 0), [key_of(shared, 1), key_of(shared, 2)]
    for key in (mine, *others):
        await client.set(key, "0")
    shared.masters[0].freeze()
    try:
        begin = time.monotonic()
        lost = await asyncio.gather(*(answered(client.incr(mine)) for _ in range(FAILURES)))
        assert not any(lost) and time.monotonic() - begin < BUDGET + SLACK
        begin = time.monotonic()
        assert not await answered(client.incr(mine))
        assert time.monotonic() - begin < BUDGET / 2
        async with client.pipeline(transaction=False) as pipe:
            for key in (mine, *others):
                pipe.incr(key)
            first, *rest = await pipe.execute(raise_on_error=False)
        assert isinstance(first, StoreAway) and rest == [1, 1]
    finally:
        shared.masters[0].thaw()
    async with asyncio.timeout(10):
        while not await answered(client.get(mine)):
            await asyncio.sleep(0.01)
    # Of what was sent while it was frozen, nothing ran twice when it came to.
    assert 1 <= int(shared.masters[0].ask("GET", mine)) <= FAILURES
    await client.aclose()


async def test_a_server_that_is_no_cluster_is_named() -> None:
    with running_valkey() as server:
        client: Any = connect(f"redis+cluster://127.0.0.1:{server.port}", timeout=BUDGET)
        with pytest.raises(StoreAway) as away:
            await check(client)
        assert "cluster support disabled" in str(away.value.__cause__)
        await client.aclose()


async def test_every_master_is_asked_for_its_eviction_policy(shared: ValkeyCluster, client: Any) -> None:
    await check(client)
    shared.masters[2].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ValueError, match="allkeys-lru"):
            await check(client)
    finally:
        shared.masters[2].ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_dead_seeds_do_not_hide_the_living_one(shared: ValkeyCluster) -> None:
    alive = shared.masters[0].port
    client: Any = connect(f"redis+cluster://127.0.0.1:1,127.0.0.1:2,127.0.0.1:{alive}", timeout=BUDGET)
    assert await client.set("x", "1")
    await client.aclose()


async def test_a_failover_is_followed_and_writes_are_confirmed_by_their_own_replica() -> None:
    with running_cluster(replicated=True) as cluster:
        client: Any = connect(cluster.url, timeout=BUDGET)
        keys = [key_of(cluster, n) for n in range(3)]
        script = client.register_script("return redis.call('INCR', KEYS[1])")
        await until_confirmed(client, keys)
        for key in keys:
            assert (await confirmed_script(client, script, [f"{{{key}}}n"], [])) == (1, True)
        cluster.replicas[1].stop()
        assert (await confirmed(client, "SET", keys[0], "x")).kept
        assert await confirmed(client, "SET", keys[1], "x") == (True, False)
        pipe = client.pipeline(transaction=False).set(keys[0], "y").set(keys[1], "y")
        assert (await pipe.execute_command("WAIT", 1, 50).execute())[-1] == 0

        cluster.masters[0].stop()
        async with asyncio.timeout(20):
            while not await answered(client.set(keys[0], "after")):
                assert await client.set(keys[2], "meanwhile")
                await asyncio.sleep(0.02)
        assert cluster.replicas[0].ask("GET", keys[0]) == "after"
        assert await client.get(f"{{{keys[0]}}}n") == b"1"
        await client.aclose()


async def until_confirmed(client: Any, keys: list[str]) -> None:
    async with asyncio.timeout(10):
        for key in keys:
            while not (await confirmed(client, "SET", key, "x")).kept:
                pass
