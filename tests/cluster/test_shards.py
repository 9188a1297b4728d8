"""Tensor parallel through the deploy command: one shard, two in one node, and two on two nodes.

What ends a shard ends the replica: its turns, its lease and every process of it, on both nodes.
"""

import asyncio
import os
from collections.abc import Callable
from time import monotonic

import psutil
import pytest

from cluster.link.v1 import link_pb2 as pb
from tests.cluster.deployment import GREEDY, LONG, PROMPT, RELOAD_S, Deployments, Replica, Splits
from tests.support.two_nodes import TwoNodes

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

# Tokens on which answers agree: two shards add up alike wherever they sit, one shard rounds otherwise.
SAME_SPLIT, SAME = 8, 2
TOLD_S = 2.0
LEASE_S = 5.0
CLEARED_S = 10.0


async def test_all_splits_of_a_checkpoint_answer_alike(splits: Splits, two_node_ray: TwoNodes) -> None:
    print(f"nodes: {two_node_ray.kind}; loaded in {splits.seconds}")
    one, pair, spread = (splits.answers[name] for name in ("one", "pair", "spread"))
    assert pair[:SAME_SPLIT] == spread[:SAME_SPLIT]
    assert one[:SAME] == pair[:SAME]


async def test_each_node_has_one_shard(spread: Replica, two_node_ray: TwoNodes) -> None:
    shards = [node.titled("VLLM::Worker") for node in two_node_ray.nodes]
    assert [len(on_node) for on_node in shards] == [1, 1]
    networks = {os.readlink(f"/proc/{one.pid}/ns/net") for [one] in shards}
    assert len(networks) == (2 if two_node_ray.kind == "network namespaces" else 1)


async def test_a_killed_shard_of_the_second_node_ends_the_replica_which_is_replaced(
    deployments: Deployments, spread: Replica
) -> None:
    answer = await spread.answer()
    shard = deployments.one("VLLM::Worker", beside="ShardHost")
    since = monotonic()
    await ends_with(deployments, spread, shard.kill)
    new = await deployments.replica("spread", seconds=RELOAD_S, other_than=spread.name)
    assert await new.answer() == answer
    print(f"the next replica answers {monotonic() - since:.1f} s after the kill")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "beside"), [("VLLM::Worker", "ServeReplica:"), ("ShardHost", "ShardHost")]
)
async def test_a_killed_shard_or_host_of_either_node_ends_the_replica(
    deployments: Deployments, spread: Replica, killed: str, beside: str
) -> None:
    await ends_with(deployments, spread, deployments.one(killed, beside=beside).kill)


@pytest.mark.slow
async def test_a_lost_node_ends_the_replica(deployments: Deployments, spread: Replica) -> None:
    second = deployments.ray.nodes[1]
    if not second.titled("ShardHost"):
        pytest.skip("Ray gave the replica's own actor to the second node, and the first one holds Ray itself")
    await ends_with(deployments, spread, lambda: deployments.ray.kill_raylet(second))
    deployments.ray.restart(second)


@pytest.mark.slow
async def test_a_killed_replica_leaves_no_shard_on_any_node(
    deployments: Deployments, spread: Replica
) -> None:
    family = deployments.engine_processes()
    actor = deployments.one("ServeReplica:", beside="ServeReplica:")
    async with spread.gateway() as gateway:
        await gateway.submit(1, PROMPT, LONG, sampling=GREEDY)
        await gateway.until(lambda ledger: len(ledger.tokens.get(1, ())) > 2)
        actor.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, CLEARED_S)
    assert alive == []
    # Nobody is left to withdraw the lease: it expires.
    await gone(deployments, spread, LEASE_S)


async def gone(deployments: Deployments, replica: Replica, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while replica in await deployments.replicas("spread"):
            await asyncio.sleep(0.02)


async def ends_with(deployments: Deployments, replica: Replica, kill: Callable[[], None]) -> None:
    """A turn that runs meanwhile and the lease end within two seconds, and then every process."""
    family = deployments.engine_processes()
    async with replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, LONG, sampling=GREEDY)
        await gateway.until(lambda ledger: len(ledger.tokens.get(1, ())) > 2)
        since = monotonic()
        kill()
        await gateway.finished(1)
        told = monotonic() - since
    await gone(deployments, replica, TOLD_S)
    withdrawn = monotonic() - since
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, CLEARED_S)
    cleared = monotonic() - since
    print(f"told after {told:.2f} s, lease gone after {withdrawn:.2f} s, processes after {cleared:.1f} s")
    end = gateway.ledger.finishes[1]
    assert end.cause == pb.FINISH_CAUSE_ENGINE, end
    assert withdrawn < TOLD_S
    assert alive == []
