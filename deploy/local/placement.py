"""How the engine of a local stack is set on this machine's GPUs: one replica, by the planner."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cluster.models.catalogue import Model
from cluster.models.gpus import Gpu
from cluster.models.planner import NoPlan, Question, plan


class DoesNotFit(Exception):
    """The message says what is needed and what would hold it."""


def engine_arguments(model: Model, gpus: Sequence[Gpu]) -> dict[str, Any]:
    """Settings of the engine's section vllm; none where this machine's GPUs could not be read."""
    alike = [gpu for gpu in gpus if gpu == gpus[0]]
    if not alike:
        return {}
    made = plan(Question(model, alike[0], len(alike), gpus_per_node=len(alike)))
    if isinstance(made, NoPlan):
        why = made.rejected[-1].why
        raise DoesNotFit(
            f"{model.name} does not fit on {len(alike)} x {alike[0].name}: {why}; {made.instead}"
        )
    return asdict(made.layout.arguments)


def in_shards(count: int | None, cpus: int, gpus: int) -> dict[str, Any]:
    """The arguments for as many shards as the operator wants, each on a GPU or on a core of its own; none for None."""
    if count is None:
        return {}
    if count > (gpus or cpus):
        raise DoesNotFit(
            f"{count} shards need as many {'GPUs' if gpus else 'cores'}; here are {gpus or cpus}"
        )
    size = {"tensor_parallel_size": count, "pipeline_parallel_size": 1}
    bound = {} if gpus or count == 1 else {"omp_threads_bind": "|".join(map(str, range(count)))}
    return size | bound
