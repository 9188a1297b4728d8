"""A plan as a document for scripts, and as values for a Helm chart. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cluster.models.planner import NoPlan, Plan, Question


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


def values(plan: Plan, checkpoint: str) -> dict[str, Any]:
    """What a chart's engine section takes."""
    model, arguments = plan.question.model, plan.layout.arguments
    return {
        "engine": {
            "model": model.name,
            "repository": model.repository,
            "revision": model.revision or "",
            "checkpoint": checkpoint,
            "replicas": plan.layout.replicas,
            "gpu": {
                "kind": plan.question.gpu.name,
                "perReplica": arguments.gpus,
                "perNode": arguments.gpus // arguments.nodes,
            },
            **{camel(name): value for name, value in asdict(arguments).items()},
            "parser": model.parser,
            "sampling": {"temperature": model.temperature, "topP": model.top_p},
        }
    }


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
