"""A replica without Ray: simulated engine, real link, real lease."""

import asyncio
import json
import time

import pytest
from pydantic import ValidationError

from cluster.engine.health import Unhealthy
from cluster.engine.port import EngineDead
from cluster.engine.sim import SimEngine, SimSettings, SimTiming, expected_tokens
from cluster.link.v1 import link_pb2 as pb
from cluster.serving.__main__ import cause
from cluster.serving.lease import REPLICAS, lease_key, open_redis
from cluster.serving.replica import Hosts, Replica
from cluster.serving.settings import ReplicaSettings
from tests.support.engine_link import TOKEN, Gateway
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401


def settings(url: str, **fields: object) -> ReplicaSettings:
    sim = SimSettings(timing=SimTiming(scale=0.0))
    values = {
        "model": "sim-model",
        "engine": "sim",
        "sim": sim,
        "link_token": TOKEN,
        "redis_url": url,
    } | fields
    return ReplicaSettings.model_validate(values)


async def test_the_life_of_a_replica(valkey_url: str) -> None:  # noqa: F811
    before = time.time_ns() // 1_000_000
    replica = await Replica.start(settings(valkey_url), "r-9", "127.0.0.1")
    redis = open_redis(valkey_url)
    record = json.loads(await redis.get(lease_key("r-9")))
    assert record["address"] == replica.address
    assert record["epoch"] >= before
    gateway = Gateway(record["address"])
    welcome = await gateway.hello()
    assert (welcome.replica, welcome.model, welcome.engine) == ("r-9", "sim-model", "sim")
    await gateway.submit(1, [1, 2], 8)
    assert (await gateway.finished(1)).tokens[1] == expected_tokens([1, 2], 8)
    replica.check()
    assert replica.stats() == {"running": 0, "waiting": 0, "kv_use": 0.0, "queued_tokens": 0}
    await replica.drain()
    await replica.drain()
    assert await redis.keys("*") == []
    await redis.aclose()
    await gateway.close()


async def test_a_drain_ends_the_streams_after_the_turns(valkey_url: str) -> None:  # noqa: F811
    sim = SimSettings(timing=SimTiming(step_s=0.001))
    replica = await Replica.start(settings(valkey_url, sim=sim), "r-1", "127.0.0.1")
    gateway = Gateway(replica.address)
    await gateway.hello()
    await gateway.submit(1, [3], 40)
    await gateway.until(lambda ledger: 1 in ledger.tokens)
    drain = asyncio.create_task(replica.drain())
    with pytest.raises(EOFError):
        await gateway.until(lambda ledger: False)
    await drain
    assert gateway.ledger.finishes[1].cause == pb.FINISH_CAUSE_LENGTH
    assert gateway.ledger.tokens[1] == expected_tokens([3], 40)
    await gateway.close()


async def test_a_dead_engine_withdraws_the_lease_and_fails_the_check(valkey_url: str) -> None:  # noqa: F811
    replica = await Replica.start(settings(valkey_url), "r-1", "127.0.0.1")
    engine = replica.board.engine
    assert isinstance(engine, SimEngine)
    await engine.close()
    await asyncio.wait_for(replica.board.dead.wait(), 5)
    with pytest.raises(Unhealthy, match="sim is closed"):
        replica.check()
    redis = open_redis(valkey_url)
    while await redis.smembers(REPLICAS):
        await asyncio.sleep(0)
    await replica.drain()
    await redis.aclose()


async def test_an_engine_that_does_not_generate_never_gets_a_lease(
    valkey_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(_: ReplicaSettings, hosts: Hosts | None) -> SimEngine:
        engine = SimEngine()
        engine.fail_after_steps = 0
        return engine

    monkeypatch.setattr("cluster.serving.replica.start_engine", broken)
    with pytest.raises(EngineDead, match="sim failed"):
        await Replica.start(settings(valkey_url), "r-1", "127.0.0.1")
    redis = open_redis(valkey_url)
    assert await redis.keys("*") == []
    await redis.aclose()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"modle": "x"}, "modle"),
        ({"engine": "vllm"}, "section vllm"),
        ({"lease_ttl_ms": 1500}, "lease_ttl_ms"),
        ({"vllm": {"checkpoint": "x", "trust_remote_code": True}}, "trust_remote_code"),
        ({"vllm": {"checkpoint": "x", "tensor_parallel_size": 2}, "num_gpus": 1}, "num_gpus"),
        ({"vllm": {"checkpoint": "x", "tensor_parallel_size": 2, "nodes": 3}}, "nodes is 3"),
        ({"vllm": {"checkpoint": "x", "tensor_parallel_size": 4, "nodes": 2}, "num_gpus": 1}, "2 shards"),
        (
            {"engine": "vllm", "num_cpus": 0}
            | {"vllm": {"checkpoint": "x", "tensor_parallel_size": 2, "nodes": 2}},
            "num_cpus",
        ),
        ({"sim": {"timing": {"speed": 2}}}, "speed"),
        ({"health": {"stal_s": 2}}, "stal_s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_refuse_what_they_do_not_know(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        settings("redis://:hunter2@localhost", **fields)


def test_secrets_do_not_print() -> None:
    text = repr(settings("redis://:hunter2@localhost"))
    assert "hunter2" not in text
    assert TOKEN not in text


def test_the_cause_is_the_line_that_names_the_error() -> None:
    message = "Failed to start:\nTraceback:\n  File x\ncluster.engine.port.EngineDead: vllm does not start: no folder\n"
    assert cause(message) == "cluster.engine.port.EngineDead: vllm does not start: no folder"
