"""Models deployed by the deploy command, found by their leases and asked over the engine link."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

from cluster.link.v1 import link_pb2 as pb
from cluster.serving.lease import REPLICAS, lease_key, open_redis
from tests.support.engine_link import TOKEN, Gateway
from tests.support.two_nodes import TwoNodes

PROMPT = [11, 402, 7, 1999, 23]
GREEDY = pb.Sampling(temperature=0)
RELOAD_S = 240.0  # for a replica to load; most of it imports vLLM in five processes on two cores
LONG = 1900  # tokens of a turn that is still running whatever the test does meanwhile


@dataclass(frozen=True, slots=True)
class Replica:
    """As its lease tells of it."""

    name: str
    address: str

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Gateway]:
        gateway = Gateway(self.address)
        try:
            await gateway.hello()
            yield gateway
        finally:
            await gateway.close()

    async def answer(self) -> list[int]:
        """The greedy continuation of the prompt."""
        async with self.gateway() as gateway:
            await gateway.submit(1, PROMPT, 24, sampling=GREEDY)
            ledger = await gateway.finished(1)
            assert ledger.finishes[1].cause == pb.FINISH_CAUSE_LENGTH
            return ledger.tokens[1]


@dataclass(frozen=True, slots=True)
class Deployments:
    ray: TwoNodes
    redis_url: str
    checkpoint: str

    async def deploy(self, model: str, **shape: int) -> tuple[Replica, float]:
        """The replica, and the seconds until its lease told that it generates."""
        since = monotonic()
        done = await asyncio.to_thread(self.ray.serving, self._config(model, shape))
        assert done.returncode == 0, done.stderr
        return await self.replica(model), monotonic() - since

    async def delete(self, model: str) -> None:
        done = await asyncio.to_thread(self.ray.serving, self._path(model), "--delete")
        assert done.returncode == 0, done.stderr

    async def replica(self, model: str, *, seconds: float = 1.0, other_than: str = "") -> Replica:
        """The one replica that holds a lease, at the latest after so many seconds."""
        async with asyncio.timeout(seconds):
            while not (found := [one for one in await self.replicas(model) if one.name != other_than]):
                await asyncio.sleep(0.02)
        [replica] = found
        return replica

    async def replicas(self, model: str) -> list[Replica]:
        store = open_redis(self.redis_url)
        try:
            names = [name.decode() for name in await store.smembers(REPLICAS)]
            texts = [await store.get(lease_key(name)) for name in names]
        finally:
            await store.aclose()
        records = [json.loads(text) for text in texts if text]
        return [Replica(one["replica"], one["address"]) for one in records if one["model"] == model]

    def engine_processes(self) -> list[psutil.Process]:
        """What runs the model: the actors, the engine core, the shards, the guards."""
        words = ("VLLM::", "ServeReplica:", "ShardHost", "serving/guard.py")
        return [one for word in words for node in self.ray.nodes for one in node.titled(word)]

    def one(self, words: str, *, beside: str) -> psutil.Process:
        """The one process of such a title on the node that has the other: nodes are Ray's choice."""
        [node] = [node for node in self.ray.nodes if node.titled(beside)]
        [process] = node.titled(words)
        return process

    def _path(self, model: str) -> Path:
        return self.ray.scratch / f"{model}.json"

    def _config(self, model: str, shape: dict[str, int]) -> Path:
        vllm = {
            "checkpoint": self.checkpoint,
            "max_model_len": 2048,
            "max_num_seqs": 16,
            # One thread for each shard, on whichever core is free: the nodes here share their cores.
            "omp_threads_bind": "nobind",
            **shape,
        }
        settings = {
            "model": model,
            "link_token": TOKEN,
            "redis_url": self.redis_url,
            "vllm": vllm,
            "drain_grace_s": 1,
        }
        self._path(model).write_text(json.dumps({"ray_address": self.ray.ray, "settings": settings}))
        return self._path(model)


@dataclass(frozen=True, slots=True)
class Splits:
    """What each split of one checkpoint answered, and how long it took to load."""

    answers: dict[str, list[int]]
    seconds: dict[str, float]


async def compare_splits(deployments: Deployments, spread: Replica, seconds: float) -> Splits:
    """One shard, two in one node, beside two on two nodes."""
    answers, took = {"spread": await spread.answer()}, {"spread": seconds}
    for model, shape in (("one", {}), ("pair", {"tensor_parallel_size": 2})):
        replica, took[model] = await deployments.deploy(model, **shape)
        answers[model] = await replica.answer()
        await deployments.delete(model)
    return Splits(answers, took)
