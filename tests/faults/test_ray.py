"""F4 to F7 on a real Ray of two nodes, one SimEngine replica on each, with gateways beside it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import psutil
import pytest

from cluster.serving.lease import REPLICAS, lease_key, open_redis
from tests.faults.caller import Caller
from tests.faults.checks import LONG, begin, check, ends, prompts, streams, worst_gap
from tests.faults.fault import Frozen, Killed, NotInjected, shows, state_of, under
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.world import STEP, World, twins, world
from tests.support.gateway import MODEL, TOKEN
from tests.support.two_nodes import Node, TwoNodes, two_nodes
from tests.support.valkey import running_valkey

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(400)]

PROMISES = ("P1", "P2", "P3", "P7")
STREAMS = 6
MIGRATION = 1.5  # seconds from the death of a replica to the next token
REPLACED = 90.0  # seconds for Serve to have another replica


@dataclass(slots=True)
class Cluster:
    ray: TwoNodes
    redis_url: str

    def deploy(self, replicas: int, revision: str = "first") -> None:
        settings = {
            "model": MODEL,
            "revision": revision,
            "engine": "sim",
            "sim": {"timing": {"step_s": STEP}, "context_length": 4096, "vocab_size": 49152},
            "link_token": TOKEN,
            "redis_url": self.redis_url,
            "drain_grace_s": 1,
            "num_cpus": 2,  # all of a node's: one replica on each
        }
        config = self.ray.scratch / "sim.json"
        config.write_text(
            json.dumps({"ray_address": self.ray.ray, "replicas": replicas, "settings": settings})
        )
        done = self.ray.serving(config)
        assert done.returncode == 0, done.stderr

    def actors(self) -> list[psutil.Process]:
        return [one for node in self.ray.nodes for one in node.titled("ServeReplica:")]

    async def leases(self) -> set[str]:
        store = open_redis(self.redis_url)
        try:
            names = [name.decode() for name in await store.smembers(REPLICAS)]
            return {name for name in names if await store.get(lease_key(name))}
        finally:
            await store.aclose()

    async def replicas(self, count: int) -> None:
        """Waits until so many live, whichever they are."""
        async with asyncio.timeout(REPLACED):
            while len(await self.leases()) != count:
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        two_nodes() as ray,
        running_valkey("--bind", "127.0.0.1", ray.here, "--protected-mode", "no") as valkey,
    ):
        made = Cluster(ray, f"redis://{ray.here}:{valkey.port}/0")
        made.deploy(2)
        yield made


@asynccontextmanager
async def before(cluster: Cluster) -> AsyncIterator[tuple[World, Caller, dict[str, str]]]:
    """Two replicas, a gateway, and what the turns answer when nothing happens."""
    await cluster.replicas(2)
    async with world(replicas=0, gateways=1, redis_url=cluster.redis_url) as made:
        caller = await made.caller()
        await made.connected(caller, made.gateways[0], 2)
        yield made, caller, await twins(caller, caller.gateways[0], prompts(STREAMS), LONG)


async def test_a_killed_serve_replica_costs_no_token_and_is_replaced(cluster: Cluster) -> None:
    async with before(cluster) as (made, caller, answers):
        begun = await streams(caller, STREAMS, LONG)
        known = await cluster.leases()
        fault = Killed(cluster.actors()[0].pid)
        async with under(fault) as moment:
            histories = await ends(begun)
        await check(made, histories, answers)
        gap = worst_gap(histories, moment)
        assert gap <= MIGRATION
        async with asyncio.timeout(REPLACED):
            while not await cluster.leases() - known:
                await asyncio.sleep(0.1)
        note(Finding("F4", PROMISES, "pid of the Ray actor gone", STREAMS, {"next token after s": gap}))


async def test_turns_longer_than_the_grace_outlive_a_rolling_update(cluster: Cluster) -> None:
    async with before(cluster) as (made, caller, answers):
        actors = cluster.actors()
        begun = [endless(caller, i) for i in range(STREAMS)]
        await asyncio.gather(*(one.first.wait() for one in begun))
        await asyncio.to_thread(cluster.deploy, 2, "second")
        await shows(lambda: all(state_of(one.pid) in ("", "Z") for one in actors), "an old replica is there")
        histories = [history for one in begun for history in await one.end()]
        await check(made, histories, answers)
        await made.connected(caller, made.gateways[0], 2)
        figures = {
            "worst pause s": max(worst_pause(history) for history in histories),
            "worst wait of a new turn s": max(history.events[0].at - history.began for history in histories),
        }
        note(Finding("F5", (*PROMISES, "P8"), "every Ray actor another", len(histories), figures))


def worst_pause(history: History) -> float:
    times = [event.at for event in history.events]
    return max(b - a for a, b in pairwise(times))


@dataclass(slots=True)
class Endless:
    """One turn after the other, so that some run whenever the replica is told to leave."""

    caller: Caller
    prompt: str
    first: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    task: "asyncio.Task[list[History]] | None" = None

    async def run(self) -> list[History]:
        histories = []
        while not self.over:
            history = self.caller.history(self.prompt, key=f"{self.prompt} {len(histories)}")
            histories.append(history)
            running = asyncio.create_task(self.caller.run(history, max_tokens=LONG))
            await history.tokens(1)
            self.first.set()
            await running
        return histories

    async def end(self) -> list[History]:
        self.over = True
        assert self.task is not None
        return await self.task


def endless(caller: Caller, i: int) -> Endless:
    made = Endless(caller, prompts(STREAMS)[i])
    made.task = asyncio.create_task(made.run())
    return made


def raylet(node: Node) -> int:
    [found] = [one for one in node.processes() if one.name() == "raylet"]
    return found.pid


async def test_a_lost_node_costs_no_token_and_what_is_left_refuses_what_it_cannot_take(
    cluster: Cluster,
) -> None:
    second = cluster.ray.nodes[1]
    async with before(cluster) as (made, caller, answers):
        begun = await streams(caller, STREAMS, LONG)
        lost = raylet(second)
        gone = second.titled("ServeReplica:")
        cluster.ray.kill_raylet(second)
        await shows(lambda: state_of(lost) in ("", "Z"), "the raylet lives")
        histories = await ends(begun)
        if not gone:
            raise NotInjected("no replica was on that node")
        more = [begin(caller, prompt, LONG, f"more {prompt}", patient=False) for prompt in prompts(STREAMS)]
        histories += await ends(more)
        await check(made, histories, answers)
        note(Finding("F6", PROMISES, "raylet gone", len(histories)))
    await asyncio.to_thread(cluster.ray.restart, second)


async def test_turns_and_new_turns_do_not_need_rays_head(cluster: Cluster) -> None:
    """Frozen, then killed: the last test here, for nobody brings this Ray's head back."""
    [gcs] = [one for one in cluster.ray.nodes[0].processes() if one.name() == "gcs_server"]
    async with before(cluster) as (made, caller, answers):
        begun = await streams(caller, STREAMS, LONG)
        frozen = Frozen(gcs.pid)
        async with under(frozen):
            histories = await ends(begun)
            fresh = [begin(caller, prompt, LONG, f"frozen {prompt}") for prompt in prompts(STREAMS)]
            histories += await ends(fresh)
        await check(made, histories, answers)
        begun = [begin(caller, prompt, LONG, f"killed {prompt}") for prompt in prompts(STREAMS)]
        await asyncio.gather(*(history.tokens(3) for history, _ in begun))
        killed = Killed(gcs.pid)
        async with under(killed) as moment:
            last = await ends(begun)
        await check(made, last, answers)
        figures = {"next token after s": worst_gap(last, moment)}
        proof = "state T, then pid of gcs_server gone"
        note(Finding("F7", PROMISES, proof, len(histories) + len(last), figures))
