"""A whole gateway in this process: real gRPC on loopback, SimEngine replicas behind real engine links."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc

from cluster.engine.port import Engine
from cluster.engine.sim import SimEngine, SimSettings, SimTiming
from cluster.link.server import Identity, LinkServer
from cluster.link.switchboard import Switchboard
from cluster.telemetry.spans import tracing
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc, models_pb2_grpc, sessions_pb2_grpc
from services.backend.memory import MemoryLeases
from services.backend.port import Lease
from services.core.clock import RandomIds, SystemClock
from services.core.request import Scope
from services.gateway.app import Stores, build, load_models
from services.gateway.deps import Deps, ServedModel
from services.gateway.server import bind, build_server
from services.gateway.settings import GatewaySettings
from services.journal.memory_store import MemoryJournalStore
from services.sessions.memory import MemorySessionStore
from services.tenancy.keys import mint
from services.tenancy.memory import MemoryKeyStore

GOLDEN = Path(__file__).parent.parent / "golden"
CHECKPOINT = GOLDEN / "smollm2"
MODEL = "smollm2-135m"
CHECKPOINTS = {MODEL: CHECKPOINT, "gpt-oss-tiny": GOLDEN / "gptoss"}
TOKEN = "link-token-of-the-tests"
PEPPER = "pepper-of-the-tests"
FAST = SimTiming(scale=0)


@dataclass(slots=True)
class SimReplica:
    engine: Any  # SimEngine, or what the test put in its place
    board: Switchboard
    server: LinkServer
    lease: Lease


@dataclass(slots=True)
class Endpoint:
    """Stubs on one channel, with a key of tenant `acme`."""

    deps: Deps
    stores: Stores
    replicas: list[SimReplica]
    channel: grpc.aio.Channel
    address: str
    key: str
    inference: Any = field(init=False)
    models: Any = field(init=False)
    sessions: Any = field(init=False)

    def __post_init__(self) -> None:
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)
        self.models = models_pb2_grpc.ModelsStub(self.channel)
        self.sessions = sessions_pb2_grpc.SessionsStub(self.channel)

    @property
    def auth(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    async def stream(self, request: pb.GenerateRequest) -> list[pb.StreamEvent]:
        return [event async for event in self.inference.StreamGenerate(request, metadata=self.auth)]


def ask(text: str = "hello", **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(messages=[user(text)], **fields)


def user(text: str) -> pb.Message:
    return pb.Message(role=pb.ROLE_USER, content=[pb.Part(text=text)])


def settings(**overrides: Any) -> GatewaySettings:
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "key_pepper": PEPPER,
        "link_token": TOKEN,
        "models": CHECKPOINTS,
        "drain_grace": 5,
    }
    return GatewaySettings(**values | overrides)


@cache
def served(model: str) -> dict[str, ServedModel]:
    """Loaded once: a tokenizer takes 0.3 s."""
    return load_models({model: CHECKPOINTS[model]})


def memory_stores() -> Stores:
    clock = SystemClock()
    sessions = MemorySessionStore(clock, RandomIds())
    return Stores(MemoryKeyStore(), sessions, MemoryLeases(), MemoryJournalStore(clock))


async def mint_key(stores: Stores, tenant: str = "acme", scopes: Iterable[Scope] = ()) -> str:
    minted = mint(
        "test",
        secrets.SystemRandom(),
        tenant=tenant,
        name="test",
        pepper=PEPPER.encode(),
        now=SystemClock().now(),
        scopes=frozenset(scopes),
    )
    await stores.keys.put(minted.record)
    return minted.text


@asynccontextmanager
async def sim_replica(
    name: str,
    sim: SimSettings,
    capacity: int = 256,
    model: str = MODEL,
    engine: Engine | None = None,
    collector: str = "",
) -> AsyncIterator[SimReplica]:
    given, engine = engine, engine or SimEngine(sim)
    board = Switchboard(engine, capacity)
    board.start()
    traces = tracing(collector, {"headrace.replica": name})
    server = LinkServer(board, Identity(name, model, "golden"), TOKEN, traces)
    address = await server.start("127.0.0.1")
    lease = Lease(name, address, model, "golden", 1, capacity, "sim", sim.context_length)
    try:
        yield SimReplica(engine, board, server, lease)
    finally:
        await server.stop(0)
        await board.stop()
        await asyncio.to_thread(traces.close)
        if given is None:
            await engine.close()


@asynccontextmanager
async def running_gateway(
    replicas: int = 1,
    sim: SimSettings | None = None,
    stores: Stores | None = None,
    capacity: int = 256,
    model: str = MODEL,
    engine: Engine | None = None,
    scopes: Iterable[Scope] = (),
    **overrides: Any,
) -> AsyncIterator[Endpoint]:
    """`engine` takes the place of the only replica's SimEngine and stays its owner's."""
    stores = stores or memory_stores()
    sim = sim or SimSettings(timing=FAST, context_length=2048, vocab_size=49152)
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(
                sim_replica(f"sim-{i}", sim, capacity, model, engine, overrides.get("otlp_endpoint", ""))
            )
            for i in range(replicas)
        ]
        if isinstance(stores.leases, MemoryLeases):
            stores.leases.leases = [replica.lease for replica in running]
        deps = build(settings(**overrides), stores, served(model))
        server = build_server(deps)
        address = f"127.0.0.1:{bind(server, deps.settings)}"
        await deps.directory.refresh()
        await until(lambda: all(link.ready for link in deps.directory.links()))
        deps.tasks.start(deps.recorder.run(), "recorder")
        await server.start()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        try:
            key = await mint_key(stores, scopes=scopes)
            yield Endpoint(deps, stores, running, channel, address, key)
        finally:
            await server.stop(0)
            await deps.tasks.close()
            await asyncio.to_thread(deps.tracing.close)


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Waits for a state of this process that has no event of its own; yields to the loop between looks."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)
