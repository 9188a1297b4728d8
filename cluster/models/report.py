"""A plan as a document for scripts, and as values for a Helm chart. Pure."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cluster.models.catalogue import Model
from cluster.models.cpu import KV_GIB, CpuFit
from cluster.models.planner import NoPlan, Plan, Question

WAITING = 2  # a replica takes as many turns again as it runs: they wait in the engine
CPU_SEQUENCES = 16
ROOM = 1.04  # disk over weights: gpt-oss's index and tokenizer, and the 2 % of DeepSeek-R1 that is not loaded


def document(plan: Plan | NoPlan) -> dict[str, Any]:
    """The plan with plain values; memory in GiB for each GPU."""
    asked = _asked(plan.question)
    rejected = [asdict(each) for each in plan.rejected]
    if isinstance(plan, NoPlan):
        return asked | {"fits": False, "rejected": rejected, "instead": plan.instead}
    layout = plan.layout
    return asked | {
        "fits": True,
        "tensor_parallel": layout.arguments.tensor_parallel_size,
        "pipeline_parallel": layout.arguments.pipeline_parallel_size,
        "nodes": layout.arguments.nodes,
        "replicas": layout.replicas,
        "memory_gib": asdict(layout.memory) | {"kv": layout.memory.kv},
        "sequences": {"per_replica": layout.sequences, "total": plan.sequences},
        "tokens_per_second": published(plan),
        "engine": asdict(layout.arguments),
        "rejected": rejected,
        "notes": list(plan.notes),
    }


def published(plan: Plan) -> list[dict[str, Any]]:
    """Figures that others measured on one replica, and what that makes of all; empty where there are none."""
    return [
        {
            "per_replica": anchor.tokens_per_second,
            "total": anchor.tokens_per_second * plan.layout.replicas,
            "concurrency": anchor.concurrency,
            "load": anchor.load,
            "engine": anchor.engine,
            "source": anchor.source,
        }
        for anchor in plan.anchors
    ]


def _asked(question: Question) -> dict[str, Any]:
    return {
        "model": question.model.name,
        "gpu": question.gpu.name,
        "gpus": question.gpus,
        "context": question.context,
        "concurrency": question.concurrency,
    }


def values(plan: Plan, source: str = "hub") -> dict[str, Any]:
    """An entry of the chart's `models`; what is not said here has its default in the chart."""
    model, arguments = plan.question.model, plan.layout.arguments
    gpu, per_node = plan.question.gpu, arguments.gpus // arguments.nodes
    entry = {
        "engine": "vllm",
        "checkpoint": checkpoint(model, source),
        "replicas": plan.layout.replicas,
        "gpu": {
            "kind": gpu.name,
            "products": list(gpu.products),
            "perReplica": arguments.gpus,
            "perNode": per_node,
        },
        **{camel(name): value for name, value in asdict(arguments).items()},
        "capacity": WAITING * arguments.max_num_seqs,
        "shm": f"{shared_gib(per_node)}Gi",
        "resources": {"worker": resources(2 + 2 * per_node, 8 + 8 * per_node + shared_gib(per_node))},
    }
    return {"models": {model.name: entry}}


def cpu_values(fit: CpuFit, cpus: int) -> dict[str, Any]:
    """The same for one replica without a GPU, on so many cores."""
    entry = {
        "engine": "vllm",
        "checkpoint": checkpoint(fit.model, "hub"),
        "replicas": 1,
        "maxModelLen": fit.context,
        "maxNumSeqs": CPU_SEQUENCES,
        "kvCacheGib": KV_GIB,
        "capacity": WAITING * CPU_SEQUENCES,
        "shm": f"{shared_gib(0)}Gi",
        "resources": {"worker": resources(cpus, math.ceil(fit.needs_gib) + shared_gib(0))},
    }
    return {"models": {fit.model.name: entry}}


def checkpoint(model: Model, source: str) -> dict[str, str]:
    """`size` is that of a disk which holds it, with room for what the weights' figure leaves out."""
    size = f"{math.ceil(model.weights_gb * ROOM) + 1}G"
    return {
        "source": source,
        "repository": model.repository,
        "revision": model.revision or "",
        "size": size,
    }


def shared_gib(gpus: int) -> int:
    """Shared memory of a node: Ray's store of objects; of several shards the rings and NCCL's buffers."""
    return 2 + (2 * gpus if gpus > 1 else 0)


def resources(cpus: int, memory_gib: int) -> dict[str, Any]:
    """No limit of CPU: throttling shows as gaps between tokens. Memory asked for is memory had."""
    memory = f"{memory_gib}Gi"
    return {"requests": {"cpu": str(cpus), "memory": memory}, "limits": {"memory": memory}}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def yaml(tree: Mapping[str, Any]) -> str:
    """Nested mappings of scalars as YAML; a JSON scalar is a YAML scalar."""
    return "\n".join(_lines(tree, 0)) + "\n"


def _lines(tree: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, value in tree.items():
        indent = "  " * depth
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, depth + 1)
        else:
            yield f"{indent}{key}: {json.dumps(value)}"
