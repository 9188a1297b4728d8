"""How the engine of a local stack is set on this machine's GPUs: one replica, by the planner."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cluster.models.catalogue import Model
from cluster.models.gpus import Gpu
from cluster.models.planner import NoPlan, Question, plan


class DoesNotFit(Exception):
    """The message says what the model needs and what would hold it."""


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
