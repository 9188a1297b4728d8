"""The further nodes of a replica: one actor each, which runs that node's shards.

The replica's placement group has one bundle for each node. The replica sits in the first and starts
its hosts in the others; they are its children, so they end with it.
"""

import asyncio
import os
import socket
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.engine.launch import Place, VllmSettings, environment
from cluster.serving import guard
from cluster.serving.settings import ReplicaSettings
from cluster.telemetry import logs


class ShardHost:
    """Actor on a further node. Returns from `run` only by an error."""

    def __init__(self, log_level: str) -> None:
        guard.stand()
        logs.configure(log_level)

    def run(self, settings: VllmSettings, master: Place, rank: int) -> None:
        """Raises EngineDead when one of the shards here ends, or does not start."""
        here = place(rank, master)
        os.environ.update(environment(settings, here))
        from cluster.engine import vllm

        vllm.host_shards(settings, here)


class ShardHosts:
    """The hosts of one replica. `lost` resolves with what happened as soon as one is gone."""

    def __init__(self, settings: ReplicaSettings) -> None:
        if settings.vllm is None:
            raise ValueError("only vLLM has shards")
        self.master = place(0)
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        nodes = range(1, settings.vllm.nodes)
        # The handles are kept: Ray ends an actor that nobody refers to.
        self._hosts = [start_host(settings, rank) for rank in nodes]
        runs = [host.run.remote(settings.vllm, self.master, rank) for rank, host in enumerate(self._hosts, 1)]
        self._watches = [asyncio.create_task(self._watch(rank, run)) for rank, run in enumerate(runs, 1)]

    async def _watch(self, rank: int, run: Any) -> None:
        try:
            await run
            why = "it ended"
        except RayError as error:
            why = first_words(error)
        if not self.lost.done():
            self.lost.set_result(f"node {rank} of the engine is lost: {why}")


def start_host(settings: ReplicaSettings, rank: int) -> Any:
    strategy = PlacementGroupSchedulingStrategy(
        placement_group=ray.util.get_current_placement_group(), placement_group_bundle_index=rank
    )
    options = {"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus}
    return ray.remote(ShardHost).options(scheduling_strategy=strategy, **options).remote(settings.log_level)


def place(rank: int, master: Place | None = None) -> Place:
    """This node among those of an engine; the shards of all meet at the first node."""
    address = str(ray.util.get_node_ip_address())
    meeting = (master.master, master.port) if master else (address, free_port(address))
    return Place(rank, address, interface(address), *meeting)


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def interface(address: str) -> str:
    """Name of the network interface that has this address; "lo" for the many names of loopback."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return name
    return "lo" if address.startswith("127.") else ""


def first_words(error: RayError) -> str:
    """The error of the shard itself; of Ray's own errors the first line."""
    text = str(getattr(error, "cause", None) or error)
    return (text.splitlines() or [type(error).__name__])[0]
