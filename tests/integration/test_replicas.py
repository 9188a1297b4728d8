"""Several replicas: where turns go, and what happens when one refuses, leaves or falls silent."""

import asyncio

import grpc
import pytest

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import models_pb2
from services.backend.memory import MemoryLeases, MemoryScaling
from services.backend.scaling import Change, Scaling
from services.client import Client
from tests.support.gateway import FAST, MODEL, Endpoint, ask, memory_stores, running_gateway, until

SLOW = SimSettings(timing=SimTiming(step_s=0.005, scale=1), context_length=2048, vocab_size=49152)
QUICK = SimSettings(timing=FAST, context_length=2048, vocab_size=49152)


async def hold(endpoint: Endpoint, turns: int) -> list[grpc.aio.UnaryStreamCall]:
    """Turns that run until cancelled, each past its first token."""
    calls = [
        endpoint.inference.StreamGenerate(ask(f"hold {i}", max_tokens=2000), metadata=endpoint.auth)
        for i in range(turns)
    ]
    await asyncio.gather(*(first_delta(call) for call in calls))
    return calls


async def first_delta(call: grpc.aio.UnaryStreamCall) -> None:
    async for event in call:
        if event.WhichOneof("event") == "delta":
            return


async def test_turns_spread_over_the_replicas() -> None:
    async with running_gateway(replicas=2, sim=SLOW) as endpoint:
        calls = await hold(endpoint, 8)
        assert [replica.engine.load().running for replica in endpoint.replicas] == [4, 4]
        for call in calls:
            call.cancel()


async def test_an_order_that_a_draining_replica_refuses_runs_on_another() -> None:
    async with running_gateway(replicas=2, sim=QUICK) as endpoint:
        endpoint.replicas[0].board.draining = True  # the gateway has not heard of it yet
        for i in range(4):
            reply = await endpoint.inference.Generate(ask(f"turn {i}", max_tokens=4), metadata=endpoint.auth)
            assert reply.usage.completion_tokens == 4


async def test_full_replicas_refuse_with_a_delay_and_cost_nobody_their_turn() -> None:
    async with running_gateway(replicas=2, sim=SLOW, capacity=2) as endpoint:
        calls = await hold(endpoint, 4)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.Generate(ask(max_tokens=4), metadata=endpoint.auth)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            await first_delta(call)
            call.cancel()


async def test_a_replica_whose_lease_is_gone_serves_as_long_as_its_link_lives() -> None:
    async with running_gateway(sim=QUICK) as endpoint:
        leases = endpoint.stores.leases
        assert isinstance(leases, MemoryLeases)
        leases.leases.clear()
        await endpoint.deps.directory.refresh()
        reply = await endpoint.inference.Generate(ask(max_tokens=4), metadata=endpoint.auth)
        assert reply.usage.completion_tokens == 4
        await endpoint.replicas[0].server.stop(0)
        await until(lambda: not endpoint.deps.directory.links()[0].ready)
        await endpoint.deps.directory.refresh()
        assert endpoint.deps.directory.links() == []


async def test_a_link_that_broke_comes_back() -> None:
    async with running_gateway(sim=QUICK) as endpoint:
        [replica] = endpoint.replicas
        await replica.server.stop(0)
        await until(lambda: not endpoint.deps.directory.links()[0].ready)
        await replica.server.start("127.0.0.1", int(replica.lease.address.rpartition(":")[2]))
        await until(lambda: endpoint.deps.directory.links()[0].ready)
        reply = await endpoint.inference.Generate(ask(max_tokens=4), metadata=endpoint.auth)
        assert reply.usage.completion_tokens == 4


async def test_models_shows_replicas_and_their_load() -> None:
    async with running_gateway(replicas=2, sim=SLOW) as endpoint:
        calls = await hold(endpoint, 2)
        listed = await endpoint.models.ListModels(models_pb2.ListModelsRequest(), metadata=endpoint.auth)
        [model] = listed.models
        assert model.name == MODEL and model.context_length == 2048
        assert [replica.connected for replica in model.replicas] == [True, True]
        assert sum(replica.running for replica in model.replicas) == 2
        got = await endpoint.models.GetModel(models_pb2.GetModelRequest(name=MODEL), metadata=endpoint.auth)
        assert got.name == MODEL
        with pytest.raises(grpc.aio.AioRpcError) as absent:
            await endpoint.models.GetModel(models_pb2.GetModelRequest(name="x"), metadata=endpoint.auth)
        assert absent.value.code() is grpc.StatusCode.NOT_FOUND
        for call in calls:
            call.cancel()


async def test_models_shows_what_the_autoscaler_decided_and_changed() -> None:
    stores = memory_stores()
    async with running_gateway(sim=QUICK, stores=stores) as endpoint:
        listing = models_pb2.ListModelsRequest()
        listed = await endpoint.models.ListModels(listing, metadata=endpoint.auth)
        assert not listed.models[0].HasField("scaling")
        board = stores.scaling
        assert isinstance(board, MemoryScaling)
        changes = (Change(1, 2, "turns", 1.8e9),)
        wanted = {"turns": 1.5}
        now = endpoint.deps.clock.now()
        board.scalings[MODEL] = Scaling(2, 1, "steady", "pending", wanted, now, changes)
        await endpoint.deps.scalings.refresh()
        async with Client(endpoint.address, endpoint.key) as client:
            [model] = await client.models()
        assert model.scaling is not None and model.scaling.age < 30
        told = (
            model.scaling.desired,
            model.scaling.current,
            model.scaling.reason,
            model.scaling.held_because,
        )
        assert told == (2, 1, "steady", "pending") and model.scaling.wanted == wanted
        assert [(each.before, each.after, each.at) for each in model.changes] == [(1, 2, 1.8e9)]


async def test_a_reader_that_is_slow_gets_fewer_and_larger_messages() -> None:
    """Coalescing: what piles up while the transport is full comes as one message."""
    async with running_gateway(sim=QUICK) as endpoint:
        request = ask("be quick", max_tokens=1900)
        call = endpoint.inference.StreamGenerate(request, metadata=endpoint.auth)
        events: list[pb.StreamEvent] = [event async for event in call]
        deltas = [event for event in events if event.HasField("delta")]
        assert sum(event.delta.tokens for event in deltas) == 1900
        assert len(deltas) < 1900 and max(event.delta.tokens for event in deltas) > 1
