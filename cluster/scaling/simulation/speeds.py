"""How fast a replica of a model is on a GPU kind: the planner's layout, and published figures as the simulated
engine's timing. Where a figure is missing nothing is guessed: the caller has to give it."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.engine.timing import BLOCK_TOKENS, SimTiming
from cluster.models.anchors import ANCHORS, BURST, Anchor
from cluster.models.catalogue import Model
from cluster.models.gpus import Gpu
from cluster.models.memory import sequences
from cluster.models.planner import Layout, NoPlan, Question, plan

# Prompt tokens per second of one replica, from runs that are almost prefill only (4k in, 200 out; of the total the
# prompt's share): gpustack performance lab, vLLM 0.10.2 and 0.11.
PREFILL = {
    ("gpt-oss-120b", "h100", 1): 15_000.0,
    ("gpt-oss-120b", "h100", 2): 32_900.0,
    ("gpt-oss-20b", "h100", 1): 32_200.0,
    ("gpt-oss-20b", "a100-80", 1): 16_500.0,
}
# ShareGPT bursts of the same lab: total tokens are 2.1 times the output (16,042 of 7,649, 19,129 of 9,064).
PROMPT_PER_OUTPUT = 1.1
DEFAULT_STEP_S = SimTiming().step_s  # where one figure alone is published


class NoSpeed(ValueError):
    """Nothing is published for it: the message says what is, and what to give instead."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one replica. `gpus` it takes; `sources` of the figures."""

    timing: SimTiming
    gpus: int
    most: int  # replicas that the GPUs give
    sources: tuple[str, ...]


def speed(model: Model, gpu: Gpu, gpus: int, prefill_tokens_per_second: float | None = None) -> Speed:
    """The layout that `headrace plan` takes, at the speed that others measured. Raises NoSpeed."""
    made = plan(Question(model, gpu, gpus))
    if isinstance(made, NoPlan):
        raise NoSpeed(f"{model.name} does not fit on {gpus} x {gpu.name}: {made.instead}")
    layout = made.layout
    arguments = layout.arguments
    figures = _figures(model, gpu, layout)
    place = (model.shape.name, gpu.name, arguments.gpus)
    prefill = prefill_tokens_per_second or PREFILL.get(place)
    if prefill is None:
        raise NoSpeed(
            f"prefill_tokens_per_second of {model.name} on {gpu.name} ({layout.name}) is not published: give it"
        )
    step_s, per_turn = fit(figures, arguments.max_num_seqs, prefill)
    tokens = sequences(model, arguments, layout.memory.kv) * arguments.max_model_len
    timing = SimTiming(
        prefill_tokens_per_s=prefill,
        step_s=step_s,
        step_s_per_turn=per_turn,
        kv_blocks=tokens // BLOCK_TOKENS,
        max_num_seqs=arguments.max_num_seqs,
        max_batch_tokens=arguments.max_num_batched_tokens,
    )
    return Speed(timing, arguments.gpus, layout.replicas, tuple(_source(each) for each in figures))


def fit(figures: Sequence[Anchor], max_num_seqs: int, prefill: float) -> tuple[float, float]:
    """Seconds of a step without turns, and of each turn in it: least squares over the figures.

    Raises NoSpeed without any. One figure gives the second number; the first is then the simulated engine's.
    """
    points = [_point(each, max_num_seqs, prefill) for each in figures]
    if len(points) == 1:
        (turns, seconds) = points[0]
        return DEFAULT_STEP_S, max(0.0, (seconds - DEFAULT_STEP_S) / turns)
    mean_turns = sum(turns for turns, _ in points) / len(points)
    mean_seconds = sum(seconds for _, seconds in points) / len(points)
    spread = sum((turns - mean_turns) ** 2 for turns, _ in points)
    per_turn = sum((t - mean_turns) * (s - mean_seconds) for t, s in points) / spread
    return max(1e-4, mean_seconds - per_turn * mean_turns), per_turn


def _point(figure: Anchor, max_num_seqs: int, prefill: float) -> tuple[float, float]:
    """Turns in the batch, and seconds of its step without the prompts that were computed beside."""
    turns = min(figure.concurrency, max_num_seqs)
    seconds = turns / figure.tokens_per_second
    prompts = turns * PROMPT_PER_OUTPUT / prefill if figure.concurrency == BURST else 0.0
    return turns, seconds - prompts


def _figures(model: Model, gpu: Gpu, layout: Layout) -> list[Anchor]:
    arguments = layout.arguments
    place = (gpu.name, arguments.tensor_parallel_size, arguments.pipeline_parallel_size)
    of_model = [each for each in ANCHORS if each.shape == model.shape.name]
    figures = [each for each in of_model if (each.gpu, each.tensor_parallel, each.pipeline_parallel) == place]
    if not figures:
        known = sorted({f"{each.gpu} with {each.tensor_parallel} GPUs" for each in of_model})
        has = f"there is {', '.join(known)}" if known else "there is none of this model"
        raise NoSpeed(f"no tokens/s of {model.name} on {gpu.name} as {layout.name} are published: {has}")
    return figures


def _source(figure: Anchor) -> str:
    return f"{figure.tokens_per_second:,} tokens/s at {figure.load} ({figure.source}, {figure.engine})"
