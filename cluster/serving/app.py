"""The Ray Serve application: one deployment of engine replicas for one model.

Serve places, checks, replaces and scales the replicas. No token passes through it.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve

import cluster
from cluster.engine.launch import OFFLINE
from cluster.scaling.settings import LIVE, ScalingSettings
from cluster.serving import guard
from cluster.serving.names import slug
from cluster.serving.replica import Replica
from cluster.serving.settings import NODE, AppSettings, ReplicaSettings, brief, with_secrets
from cluster.serving.shards import ShardHosts
from cluster.telemetry import logs, names
from cluster.telemetry.export import Export

# Time that Serve allows after the drain's grace, for the engine's processes to end.
SHUTDOWN_MARGIN_S = 15.0

# Time that a replica with a dead engine has to tell its gateways.
LAST_WORDS_S = 3.0

# Replicas tell their load so often. Serve also wants a window for its averages, which the policy does not use.
STATS_S = 1.0
LOOK_BACK_S = 3.0
POLICY = "cluster.serving.policy:LoadPolicy"
MOST_ONGOING = 100_000


class EngineReplica:
    """A Serve replica. Serve awaits `__init__` for as long as it takes and `__del__` as the drain."""

    async def __init__(self, settings: ReplicaSettings) -> None:  # type: ignore[misc]
        # mypy: Serve, unlike Python, awaits a constructor.
        guard.stand()
        logs.configure(settings.log_level)
        host = ray.util.get_node_ip_address() if settings.host == NODE else settings.host
        unique = serve.get_replica_context().replica_id.unique_id
        hosts = ShardHosts(settings) if settings.nodes > 1 else None
        self._replica = await Replica.start(settings, f"{slug(settings.model)}-{unique}", host, hosts)
        self._leaving = asyncio.create_task(self._leave_when_dead())
        labels = {"model": settings.model, "replica": self._replica.name}
        export = Export(labels)
        export.observe(names.LOAD, self._replica.load_s)
        self._exporting = asyncio.create_task(export.run(self._replica.figures), name="export of figures")

    async def check_health(self) -> None:
        """Three failures in a row and Serve replaces the replica. Raises Unhealthy."""
        self._replica.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return self._replica.stats()

    async def address(self) -> str:
        return self._replica.address

    async def __del__(self) -> None:
        replica: Replica | None = self.__dict__.get("_replica")
        if replica is not None:
            self._leaving.cancel()
            await replica.drain()
            self._exporting.cancel()

    async def _leave_when_dead(self) -> None:
        """An actor that is gone is replaced at the next check; one that fails its checks after three."""
        await self._replica.board.dead.wait()
        await asyncio.wait([asyncio.create_task(self._replica.drain(grace_s=0))], timeout=LAST_WORDS_S)
        os._exit(1)


def application(args: Mapping[str, Any]) -> serve.Application:
    """What `import_path: cluster.serving.app:application` of a serveConfigV2 builds, from its `args`.

    Raises ValueError that names each field that is wrong or unknown, and no value.
    """
    try:
        return build(AppSettings.model_validate(with_secrets(args, os.environ)))
    except ValidationError as error:
        raise ValueError(f"args of the application: {brief(error)}") from None


def build(app: AppSettings) -> serve.Application:
    """The application of one model. Each model has its own, so that their roll-outs do not touch."""
    settings = app.settings
    deployment = serve.deployment(
        EngineReplica,
        name=slug(settings.model),
        ray_actor_options=actor_options(settings),
        # Requests come over the link, none by Serve. It warns where this is below a target of its autoscaling.
        max_ongoing_requests=MOST_ONGOING,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=settings.drain_grace_s + SHUTDOWN_MARGIN_S,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=2,
        **number(app),
        **placement(settings),
    )
    # Without a version of ours Serve makes one up, and each deploy replaces every replica. From a serveConfigV2
    # Serve takes the digest of its `args` instead.
    versioned = deployment.options(version=app.version(), _internal=True)
    return versioned.bind(settings)


def number(app: AppSettings) -> dict[str, object]:
    """How many replicas, or who decides that. A serveConfigV2 has the same among its `deployments`."""
    if app.autoscaling is None:
        return {"num_replicas": app.replicas}
    return {"autoscaling_config": autoscaling(app.settings.model, app.autoscaling)}


def autoscaling(model: str, scaling: ScalingSettings) -> dict[str, object]:
    """Our law decides, so Serve's own delays, factors and averages do nothing. In a serveConfigV2 the policy and its
    kwargs count as code, of which another version replaces every replica: what is changed in daily work is not there.
    """
    kwargs = {"model": model, "settings": scaling.model_dump(mode="json", exclude=set(LIVE))}
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "target_ongoing_requests": scaling.target_turns,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
        "upscaling_factor": 1.0,
        "downscaling_factor": 1.0,
        "metrics_interval_s": STATS_S,
        "look_back_period_s": LOOK_BACK_S,
        "policy": {"policy_function": POLICY, "policy_kwargs": kwargs},
    }


def actor_options(settings: ReplicaSettings) -> dict[str, object]:
    # The code of this package, for clusters whose workers do not have it installed.
    path = str(Path(cluster.__file__).parents[1])
    env = OFFLINE | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    return {
        "num_cpus": settings.num_cpus,
        "num_gpus": settings.num_gpus,
        "runtime_env": {"env_vars": env},
    }


def placement(settings: ReplicaSettings) -> dict[str, object]:
    """With several nodes, one bundle for each. The replica's actor takes the first, its shard hosts the others."""
    if settings.nodes == 1:
        return {}
    asked = {"CPU": settings.num_cpus, "GPU": settings.num_gpus}
    bundle = {resource: amount for resource, amount in asked.items() if amount}
    return {
        "placement_group_bundles": [bundle] * settings.nodes,
        "placement_group_strategy": "STRICT_SPREAD",
    }
