"""The processes of one test: a store, replicas, gateways, and clients; each started here and ended here."""

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.api.headrace.v1 import models_pb2, models_pb2_grpc
from services.store.connect import connect
from services.tenancy.keys import KeyRecord
from services.tenancy.redis import RedisKeyStore
from tests.faults.caller import Caller, calling
from tests.faults.promises import Ledger, Order, conserved
from tests.faults.talk import PATIENCE, Gone, Process, running
from tests.support.gateway import CHECKPOINT, MODEL, PEPPER, TOKEN, memory_stores, mint_key
from tests.support.valkey import free_port, running_valkey

STEP = 0.008  # seconds of an engine step: slow enough to aim at a token
CONTEXT = 4096


@dataclass(slots=True)
class Replica:
    name: str
    process: Process

    @property
    def orders(self) -> list[Order]:
        told = (line.split(" ")[1:] for line in self.process.said if line.startswith("order "))
        return [Order(turn, int(prompt), float(at)) for turn, prompt, at in told]

    async def load(self) -> dict[str, float]:
        return dict(json.loads(await self.process.ask("ledger")))


@dataclass(slots=True)
class Gateway:
    """A worker without supervisor, as tests/faults/gateway.py has it."""

    address: str
    process: Process

    async def ledger(self) -> dict[str, Any]:
        return dict(json.loads(await self.process.ask("ledger")))


@dataclass(slots=True)
class Supervised:
    """A gateway as operators run it: supervisor and workers."""

    address: str
    health: str
    metrics: str
    process: Process

    async def reports(self, wanted: int) -> None:
        """Waits until its health is this."""
        async with grpc.aio.insecure_channel(self.health) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE
            )
            async for reply in watch:
                if reply.status == wanted:
                    return

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5) as reply:
            return str(reply.read().decode())


@dataclass(slots=True)
class World:
    redis_url: str
    folder: Path
    stack: AsyncExitStack
    sim: dict[str, Any]  # SimSettings
    replicas: list[Replica] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)
    keys: list[KeyRecord] = field(default_factory=list)
    _logs: int = 0

    async def replica(self, name: str, *, announce: str = "", redis_url: str = "", **fields: Any) -> Replica:
        """`announce`: the address that gateways are told, if it is not its own. `fields` are ReplicaSettings'."""
        settings = {
            "model": MODEL,
            "engine": "sim",
            "sim": self.sim,
            "link_token": TOKEN,
            "redis_url": redis_url or self.redis_url,
            "drain_grace_s": 5,
        }
        env = clean() | {"SETTINGS": json.dumps(settings | fields), "ANNOUNCE": announce}
        process = await self.stack.enter_async_context(
            running("tests.faults.replica", name, env=env, log=self._log(name))
        )
        await process.hear("ready")
        self.replicas.append(replica := Replica(name, process))
        return replica

    async def gateway(
        self, *, redis_url: str = "", listen: str = "", links: int | None = None, **env: str
    ) -> Gateway:
        """`links`: how many replicas it has to be connected to; by default all that live."""
        settings = (
            environment(redis_url or self.redis_url) | {"HEADRACE_LISTEN": listen or self.address()} | env
        )
        process = await self.stack.enter_async_context(
            running("tests.faults.gateway", env=settings, log=self._log("gateway"))
        )
        await process.hear("serving")
        gateway = Gateway(settings["HEADRACE_LISTEN"], process)
        self.gateways.append(gateway)
        return gateway

    async def supervised(self, **env: str) -> Supervised:
        address, health, metrics = self.address(), self.address(), self.address()
        settings = environment(self.redis_url) | {
            "HEADRACE_LISTEN": address,
            "HEADRACE_HEALTH_LISTEN": health,
            "HEADRACE_METRICS_LISTEN": metrics,
        }
        process = await self.stack.enter_async_context(
            running("services.gateway", env=settings | env, log=self._log("supervised"))
        )
        gateway = Supervised(address, health, metrics, process)
        await gateway.reports(health_pb2.HealthCheckResponse.SERVING)
        return gateway

    async def caller(self, tenant: str = "acme", gateways: Iterable[str] = ()) -> Caller:
        """A client with a key of its own; it knows all gateways, or those that are named."""
        auth = await self.key(tenant)
        addresses = list(gateways) or [gateway.address for gateway in self.gateways]
        return await self.stack.enter_async_context(calling(tenant, auth, addresses))

    async def key(self, tenant: str) -> tuple[tuple[str, str], ...]:
        stores = memory_stores()
        text = await mint_key(stores, tenant)
        [record] = stores.keys._records.values()
        self.keys.append(record)
        await self.restore_keys()
        return (("authorization", f"Bearer {text}"),)

    async def restore_keys(self) -> None:
        """Puts the API keys where they were, in a store that lost them."""
        client = connect(self.redis_url, timeout=2)
        try:
            for record in self.keys:
                await RedisKeyStore(client).put(record)
        finally:
            await client.aclose()

    async def connected(self, caller: Caller, gateway: Gateway, count: int) -> None:
        """Waits until the gateway has links to so many replicas."""
        stub = models_pb2_grpc.ModelsStub(caller.channel(gateway.address))
        deadline = time.monotonic() + 20
        while True:
            reply = await stub.ListModels(
                models_pb2.ListModelsRequest(), metadata=caller.auth, wait_for_ready=True, timeout=20
            )
            if sum(replica.connected for model in reply.models for replica in model.replicas) >= count:
                return
            assert time.monotonic() < deadline, f"{gateway.address} has no {count} replicas"

    def orders(self) -> list[Order]:
        return [order for replica in self.replicas for order in replica.orders]

    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}

    def show_logs(self) -> None:
        """What went wrong, for whoever reads the test's output."""
        for name, text in self.logs().items():
            unusual = [line for line in text.splitlines() if '"level": "info"' not in line]
            print(f"--- {name}", *unusual[-40:], sep="\n")

    async def at_rest(self, seconds: float = 10) -> list[str]:
        """What is still held once everything had time to come to rest: violations of P7 by whoever lives."""
        found: list[str] = ["never looked"]
        give_up = time.monotonic() + seconds
        while found and time.monotonic() < give_up:
            with suppress(Gone):  # it left between two looks
                found = [violation for ledger in await self._ledgers() for violation in conserved(ledger)]
        return found

    async def _ledgers(self) -> list[Ledger]:
        ledgers = []
        for gateway in self.gateways:
            if gateway.process.talks:
                told = await gateway.ledger()
                ledgers.append(Ledger(told["held"], told["admitted"], told["outcomes"]))
        for replica in self.replicas:
            if replica.process.talks:
                held = {f"{what} of {replica.name}": value for what, value in (await replica.load()).items()}
                ledgers.append(Ledger(held, 0, {}))
        return ledgers

    def address(self) -> str:
        return f"127.0.0.1:{free_port()}"

    def _log(self, name: str) -> Path:
        self._logs += 1
        return self.folder / f"{self._logs:02}-{name}.log"


@asynccontextmanager
async def world(
    *, replicas: int = 2, gateways: int = 0, redis_url: str = "", step: float = STEP, **env: str
) -> AsyncIterator[World]:
    """With `redis_url` the store is the caller's."""
    sim = {"timing": {"step_s": step}, "context_length": CONTEXT, "vocab_size": 49152}
    with TemporaryDirectory(prefix="headrace-faults-") as folder:
        async with AsyncExitStack() as stack:
            url = redis_url or stack.enter_context(running_valkey()).url
            made = World(url, Path(folder), stack, sim)
            for i in range(replicas):
                await made.replica(f"sim-{i}")
            for _ in range(gateways):
                await made.gateway(**env)
            try:
                yield made
            except BaseException:
                made.show_logs()
                raise


async def twins(caller: Caller, gateway: str, prompts: Iterable[str], tokens: int) -> dict[str, str]:
    """The answer to each prompt in a run that nothing happened to."""
    from tests.faults.caller import Caller as Other

    calm = Other(caller.tenant, caller.auth, [gateway], caller.channels)
    turns = [calm.run(calm.history(prompt), max_tokens=tokens) for prompt in dict.fromkeys(prompts)]
    histories = await asyncio.gather(*turns)
    assert all(history.completed for history in histories), [history.attempts for history in histories]
    return {history.prompt: history.text for history in histories}


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}


def environment(redis_url: str) -> dict[str, str]:
    return clean() | {
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_KEY_PEPPER": PEPPER,
        "HEADRACE_LINK_TOKEN": TOKEN,
        "HEADRACE_MODELS": json.dumps({MODEL: str(CHECKPOINT)}),
        "HEADRACE_DRAIN_GRACE": "10",
    }
