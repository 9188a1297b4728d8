"""The files that the parts of a local stack read. Secrets stand in them: only their owner can read them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cluster.models.staging import read_manifest
from deploy.local.home import Home, write_private
from deploy.local.model import Choice
from deploy.local.readings import usable_cpus
from deploy.local.record import Stack
from deploy.local.secrets import Secrets

OVERRIDDEN = ("LISTEN", "HEALTH_LISTEN", "METRICS_LISTEN", "REDIS_URL", "KEY_PEPPER", "LINK_TOKEN", "MODELS")

CPU_CONTEXT = 8192  # tokens; what a CPU answers within patience
CPU_ANSWER, GPU_ANSWER = 512, 4096  # tokens at most where a request names no maximum
SIM_VOCABULARY = 49152
# Of an autoscaler that somebody watches: a replica starts here within seconds.
SOON = {
    "upscale_delay_seconds": 5.0,
    "downscale_delay_seconds": 60.0,
    "downscale_step_seconds": 10.0,
    "target_turns": 16.0,
}
HOLD = 60.0  # seconds that turns wait for a replica to come
SIM_ANSWER = 64  # tokens of an invented answer, about


def redis_url(stack: Stack, secrets: Secrets) -> str:
    return f"redis://:{secrets.redis_password}@{stack.store}/0"


def write_store(home: Home, stack: Stack, secrets: Secrets) -> None:
    host, _, port = stack.store.rpartition(":")
    lines = (
        f"bind {host}",
        f"port {port}",
        f"requirepass {secrets.redis_password}",
        f'dir "{home.store}"',
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
    )
    write_private(home.store_config, "\n".join(lines) + "\n")


def write_engine(
    home: Home,
    stack: Stack,
    secrets: Secrets,
    choice: Choice,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    replicas: tuple[int, int | None] = (1, None),
) -> None:
    """`arguments` are the planner's, for the GPUs of this machine. Replicas without GPUs share its cores; there are
    so many, or from so many to so many by load."""
    least, most = replicas
    shards = arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)
    settings: dict[str, Any] = {
        "model": stack.model,
        "revision": revision(choice.checkpoint),
        "engine": stack.engine,
        "redis_url": redis_url(stack, secrets),
        "link_token": secrets.link_token,
        "num_gpus": float(shards) if choice.gpu else 0.0,
    }
    if (ever := max(least, most or 0)) > 1 and not choice.gpu:
        settings["num_cpus"] = min(1.0, usable_cpus() / ever)
    shape = json.loads((choice.checkpoint / "config.json").read_text())
    context = shape.get("max_position_embeddings", CPU_CONTEXT)
    if stack.engine == "sim":
        settings["sim"] = {
            "context_length": context,
            "vocab_size": shape.get("vocab_size", SIM_VOCABULARY),
            "mean_length": SIM_ANSWER,
        }
    else:
        longest = context if choice.gpu else min(context, CPU_CONTEXT)
        settings["vllm"] = {"checkpoint": stack.checkpoint, "max_model_len": longest, **arguments}
    scaling = {"autoscaling": {"min_replicas": least, "max_replicas": most, **SOON}} if most else {}
    document = {"ray_address": stack.ray, "replicas": least, "settings": settings, **scaling}
    write_private(home.engine_config, json.dumps(document, indent=1))


def revision(checkpoint: Path) -> str:
    """What names these weights: the commit of a published model, or the digest of a prepared one's files."""
    if checkpoint.parent.name == "snapshots":
        return checkpoint.name
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return ""
    if commit := manifest.get("revision"):
        return str(commit)
    files = manifest["files"]
    digests = "".join(f"{name}{files[name]['sha256']}" for name in sorted(files))
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def write_gateway(
    home: Home, stack: Stack, secrets: Secrets, choice: Choice, workers: int = 1, *, scales: bool = False
) -> None:
    fields = {
        "listen": stack.endpoint,
        "health_listen": stack.health,
        "metrics_listen": stack.metrics,
        "redis_url": redis_url(stack, secrets),
        "key_pepper": secrets.key_pepper,
        "link_token": secrets.link_token,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    # A client on this machine may look around; its user could read all of this anyway.
    lines += [
        "reflection = true",
        f"processes = {workers}",
        f"default_max_tokens = {GPU_ANSWER if choice.gpu else CPU_ANSWER}",
        *([f"hold = {HOLD}"] if scales else []),
        "",
        "[models]",
        f"{json.dumps(stack.model)} = {json.dumps(stack.checkpoint)}",
    ]
    write_private(home.gateway_config, "\n".join(lines) + "\n")
