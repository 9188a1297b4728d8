"""One replica: an engine, the link that serves it, the judges of its health, and its lease."""

import asyncio
import gc
import os
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, Self

from cluster.engine.health import Health, SystemClock, Unhealthy
from cluster.engine.launch import Place, environment
from cluster.engine.port import Engine, EngineDead
from cluster.engine.sim import SimEngine
from cluster.link.server import Identity, LinkServer
from cluster.link.switchboard import Switchboard
from cluster.models.checkpoint import verify_checkpoint
from cluster.models.staging import CheckpointError
from cluster.serving.lease import Lease, LeaseRecord, open_redis
from cluster.serving.settings import ReplicaSettings
from cluster.telemetry import names
from cluster.telemetry.names import Metric
from cluster.telemetry.spans import tracing


class Hosts(Protocol):
    """The further nodes of an engine: where its shards meet, and a future that says what was lost."""

    master: Place
    lost: "asyncio.Future[str]"


async def start_engine(settings: ReplicaSettings, hosts: Hosts | None = None) -> Engine:
    """Raises EngineDead when the engine does not come up."""
    if settings.engine == "sim" or settings.vllm is None:
        return SimEngine(settings.sim)
    try:
        await asyncio.to_thread(verify_checkpoint, Path(settings.vllm.checkpoint))
    except CheckpointError as error:
        raise EngineDead(str(error)) from error
    place, lost = (hosts.master, hosts.lost) if hosts else (None, None)
    os.environ.update(environment(settings.vllm, place))
    # The import alone takes seconds and reads the environment, so it waits until here.
    from cluster.engine import vllm

    named = {"served_model_name": settings.vllm.served_model_name or settings.model}
    return await vllm.start(settings.vllm.model_copy(update=named), place, lost)


class Replica:
    """Started by `start`, judged by `check`, ended by `drain`. Needs no Ray."""

    def __init__(self, settings: ReplicaSettings, name: str, engine: Engine) -> None:
        self.settings = settings
        self.name = name
        self.address = ""
        self.load_s = 0.0  # that it took to start, the first token included
        self.board = Switchboard(engine, settings.capacity)
        self._clock = SystemClock()
        self._health = Health(self.board.probe, self.board.load, settings.health, self._clock)
        identity = Identity(name, settings.model, settings.revision)
        self._tracing = tracing(
            settings.otlp_endpoint, {"headrace.model": settings.model, "headrace.replica": name}
        )
        self._server = LinkServer(self.board, identity, settings.link_token.get_secret_value(), self._tracing)
        self._redis = open_redis(settings.redis_url.get_secret_value())
        self._tasks: list[asyncio.Task[None]] = []
        self._lease: Lease | None = None
        self._drained = False

    @classmethod
    async def start(cls, settings: ReplicaSettings, name: str, host: str, hosts: Hosts | None = None) -> Self:
        """Load the engine, prove that it generates, listen on `host`, and tell the gateways.

        Raises EngineDead or TimeoutError when the engine does not generate, OSError when the port is
        taken; nothing stays behind then.
        """
        begun = time.monotonic()
        replica = cls(settings, name, await start_engine(settings, hosts))
        async with AsyncExitStack() as undo:
            undo.push_async_callback(replica.drain, grace_s=0)
            await replica._open(host)
            undo.pop_all()
        replica.load_s = time.monotonic() - begun
        return replica

    def check(self) -> None:
        """Raise Unhealthy when this replica has to be replaced."""
        if self.board.dead.is_set():
            raise Unhealthy(self.board.death)
        self._health.check()

    def stats(self) -> dict[str, float]:
        """What the autoscaler decides on."""
        load = self.board.load()
        return {
            "running": load.running,
            "waiting": load.waiting,
            "kv_use": load.kv_use,
            "queued_tokens": load.queued_tokens,
        }

    def figures(self) -> dict[Metric, float]:
        """What it exports, by the names of cluster/telemetry; counters as they stand."""
        load = self.board.load()
        return {
            names.RUNNING: load.running,
            names.WAITING: load.waiting,
            names.KV_USE: load.kv_use,
            names.QUEUED_TOKENS: load.queued_tokens,
            names.CAPACITY: self.board.capacity,
            names.LINKS: self._server.connections,
            names.DRAINING: self.board.draining,
            names.STEPS: load.steps,
            names.TOKENS: self.board.tokens,
            names.CANARY_FAILURES: self._health.failures,
        }

    async def drain(self, grace_s: float | None = None) -> None:
        """Withdraw the lease, let running turns end within `grace_s` seconds (by default the
        settings'; none on a failed engine), and stop. A second call does nothing."""
        if self._drained:
            return
        self._drained = True
        if self._lease is not None:
            await self._lease.release()
        await self._server.drain(self._grace() if grace_s is None else grace_s)
        await self._server.stop()
        for task in self._tasks:
            task.cancel()
        await self.board.stop()
        await self.board.engine.close()
        await self._redis.aclose()
        await asyncio.to_thread(self._tracing.close)

    async def _open(self, host: str) -> None:
        self.board.start()
        async with asyncio.timeout(self.settings.first_token_timeout_s):
            await self.board.probe()
        # torch and vLLM are a million objects that stay; no collection shall walk them between two tokens.
        gc.collect()
        gc.freeze()
        self.address = await self._server.start(host, self.settings.port)
        self._lease = self._new_lease()
        await self._lease.hold()
        self._spawn(self._health.run())
        self._spawn(self._withdraw_when_dead())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _new_lease(self) -> Lease:
        engine, settings = self.board.engine.description, self.settings
        record = LeaseRecord(
            replica=self.name,
            address=self.address,
            model=settings.model,
            revision=settings.revision,
            epoch=time.time_ns() // 1_000_000,
            capacity=settings.capacity,
            engine=engine.name,
            context_length=engine.context_length,
        )
        return Lease(
            self._redis,
            record,
            ttl_ms=settings.lease_ttl_ms,
            renew_ms=settings.lease_renew_ms,
            clock=self._clock,
        )

    async def _withdraw_when_dead(self) -> None:
        """Gateways stop choosing a dead engine at once, not when Serve has noticed."""
        await self.board.dead.wait()
        if self._lease is not None:
            await self._lease.release()

    def _grace(self) -> float:
        try:
            self.check()
        except Unhealthy:
            return 0.0
        return self.settings.drain_grace_s
