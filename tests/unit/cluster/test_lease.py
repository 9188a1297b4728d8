"""Leases against a real valkey-server."""

import asyncio
import json
import logging
import os
import signal
from dataclasses import asdict
from typing import Any

import pytest
from redis.asyncio import Redis

from cluster.engine.health import SystemClock
from cluster.serving.lease import REPLICAS, Lease, LeaseRecord, lease_key, open_redis
from tests.support.valkey import (  # noqa: F401
    running_cluster,
    running_pair,
    running_sentinels,
    running_valkey,
    valkey_client,
    valkey_server,
    valkey_url,
)

RECORD = LeaseRecord(
    replica="r-1",
    address="127.0.0.1:7001",
    model="m",
    revision="",
    epoch=5,
    capacity=64,
    engine="sim",
    context_length=2048,
)


class StepClock(SystemClock):
    """A clock whose sleep lasts until the test lets it end."""

    def __init__(self) -> None:
        self.asleep = asyncio.Event()
        self._go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await self._go.wait()
        self._go.clear()

    async def tick(self) -> None:
        await self.asleep.wait()
        self.asleep.clear()
        self._go.set()
        await self.asleep.wait()


def lease_on(redis: Redis, clock: SystemClock) -> Lease:
    return Lease(redis, RECORD, ttl_ms=3000, renew_ms=1000, clock=clock)


async def test_a_lease_is_written_renewed_and_withdrawn(valkey_url: str) -> None:  # noqa: F811
    redis, clock = open_redis(valkey_url), StepClock()
    lease = lease_on(redis, clock)
    await lease.hold()
    assert json.loads(await redis.get(lease_key("r-1"))) == asdict(RECORD)
    assert await redis.smembers(REPLICAS) == {b"r-1"}
    assert 2000 < await redis.pttl(lease_key("r-1")) <= 3000
    await redis.flushall()
    await clock.tick()
    assert await redis.exists(lease_key("r-1"))
    assert await redis.smembers(REPLICAS) == {b"r-1"}
    await lease.release()
    assert await redis.keys("*") == []
    await redis.aclose()


async def test_a_lease_outlives_an_absent_redis(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cluster.serving.lease")
    with running_valkey() as server:
        redis = open_redis(server.url)
        lease = lease_on(redis, StepClock())
        assert await lease.renew()
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            assert not await lease.renew()
            assert not await lease.renew()
            await lease.release()
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        lease = lease_on(redis, StepClock())
        assert await lease.renew()
        await redis.aclose()
    messages = [record.getMessage() for record in caplog.records]
    assert sum("not renewed" in message for message in messages) == 1


async def test_a_lease_is_held_on_a_cluster() -> None:
    with running_cluster() as cluster:
        await held_and_withdrawn(cluster.url)


async def test_a_lease_outlives_an_absent_cluster() -> None:
    with running_cluster(masters=1) as cluster:
        lease = lease_on(redis := open_redis(cluster.url), clock := StepClock())
        await lease.hold()
        cluster.masters[0].freeze()
        for _ in range(3):  # the first finds no answer, the others no cluster
            await clock.tick()
        cluster.masters[0].thaw()
        cluster.masters[0].ask("DEL", lease_key("r-1"))
        await clock.tick()
        assert await redis.exists(lease_key("r-1"))
        cluster.masters[0].freeze()
        await lease.release()
        cluster.masters[0].thaw()
        await redis.aclose()


async def test_a_lease_follows_the_master_that_sentinels_name() -> None:
    async with running_pair(through_link=False) as pair, running_sentinels(pair.primary) as group:
        await held_and_withdrawn(group.url)
        lease = lease_on(redis := open_redis(group.url), SystemClock())
        assert await lease.renew()
        pair.primary.stop()
        async with asyncio.timeout(15):
            while not await lease.renew():
                await asyncio.sleep(0.05)
        assert pair.replica.ask("SMEMBERS", REPLICAS) == {"r-1"}
        await redis.aclose()


async def held_and_withdrawn(url: str) -> None:
    redis: Any = open_redis(url)
    lease = lease_on(redis, SystemClock())
    assert await lease.renew()
    assert json.loads(await redis.get(lease_key("r-1"))) == asdict(RECORD)
    assert await redis.smembers(REPLICAS) == {b"r-1"}
    await lease.release()
    assert await redis.get(lease_key("r-1")) is None and await redis.smembers(REPLICAS) == set()
    await redis.aclose()
