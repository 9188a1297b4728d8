"""Several whole gateways in this process on one store and the same replicas, and how one of them dies."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from cluster.engine.port import Engine
from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.backend.memory import MemoryLeases
from services.gateway.app import Stores, build
from services.gateway.server import bind, build_server
from services.gateway.takeover import Takeover
from services.gateway.worker import hand_over
from tests.support.gateway import (
    MODEL,
    Endpoint,
    SimReplica,
    memory_stores,
    mint_key,
    served,
    settings,
    sim_replica,
    until,
)

LEASE = 0.6  # seconds; the tests wait for one or two of them
SLOW = SimSettings(timing=SimTiming(step_s=0.004, scale=1), context_length=2048, vocab_size=49152)


@dataclass(slots=True)
class Gateway:
    endpoint: Endpoint
    takeover: Takeover
    server: grpc.aio.Server

    async def until_it_judges(self) -> None:
        """It has reached the store for the time of a lease, and so may give up a gateway that does not."""
        await until(lambda: self.takeover.judges)

    async def die(self) -> None:
        """As a killed process: no word to anybody, and nothing of it goes on."""
        for turn in self.endpoint.deps.turns.all():
            turn.journal.leave("", None)  # its appends reach nobody
            turn.outcome = turn.outcome or "dead"  # type: ignore[assignment]
        await self.endpoint.deps.tasks.close()
        await self.server.stop(0)

    async def shut_down(self) -> None:
        """As SIGTERM after the grace."""
        self.endpoint.deps.admission.close()
        await hand_over(self.endpoint.deps, self.takeover)
        await self.server.stop(1)
        await self.endpoint.deps.tasks.close()


async def first(call: Any, deltas: int = 1) -> list[pb.StreamEvent]:
    """The events up to the so-manieth delta."""
    events: list[pb.StreamEvent] = []
    async for event in call:
        events.append(event)
        if sum(e.HasField("delta") for e in events) >= deltas:
            break
    return events


@asynccontextmanager
async def gateway_on(
    stores: Stores, replicas: Sequence[SimReplica], key: str, model: str = MODEL, **overrides: Any
) -> AsyncIterator[Gateway]:
    overrides = {"gateway_lease": LEASE} | overrides
    deps = build(settings(**overrides), stores, served(model))
    server = build_server(deps)
    address = f"127.0.0.1:{bind(server, deps.settings)}"
    takeover = Takeover(deps)
    await deps.directory.refresh()
    await until(lambda: all(link.ready for link in deps.directory.links()))
    deps.tasks.start(deps.recorder.run(), "recorder")
    deps.tasks.start(takeover.watch(), "takeover")
    deps.tasks.start(deps.directory.watch(), "directory")
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            yield Gateway(Endpoint(deps, stores, list(replicas), channel, address, key), takeover, server)
        finally:
            await server.stop(0)
            await deps.tasks.close()
            await asyncio.to_thread(deps.tracing.close)


@asynccontextmanager
async def running_gateways(
    count: int = 2,
    stores: Stores | None = None,
    sim: SimSettings = SLOW,
    model: str = MODEL,
    engine: Engine | None = None,
    **overrides: Any,
) -> AsyncIterator[list[Gateway]]:
    """`engine` takes the place of both replicas' SimEngines, as one replica."""
    stores = stores or memory_stores()
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(sim_replica(f"sim-{i}", sim, model=model, engine=engine))
            for i in range(2 if engine is None else 1)
        ]
        assert isinstance(stores.leases, MemoryLeases)
        stores.leases.leases = [replica.lease for replica in replicas]
        key = await mint_key(stores)
        opened = [
            stack.enter_async_context(gateway_on(stores, replicas, key, model, **overrides))
            for _ in range(count)
        ]
        yield [await gateway for gateway in opened]


async def rest(call: Any) -> list[pb.StreamEvent]:
    async with asyncio.timeout(30):
        return [event async for event in call]
