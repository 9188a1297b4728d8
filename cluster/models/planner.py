"""How a model is laid out on GPUs: tensor parallel x pipeline parallel x replicas. Pure.

Memory decides first. Where several layouts hold the model, the catalogue's advice (a measurement or a recipe)
decides, and without one the layout with the fewest GPUs, since replicas share no work and fail alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.models import anchors
from cluster.models.anchors import Anchor
from cluster.models.catalogue import Advice, Model
from cluster.models.gpus import Gpu
from cluster.models.memory import Arguments, Memory, memory, sequences

ENOUGH = 4  # sequences of full length, below which a replica spends its GPUs on weights
SHORTEST = 8192  # tokens; a context that nobody asked for is not cut below this
UTILIZATION = 0.9
STEP = 256  # sequences of one step, unless more are asked of a replica
NODE = 8  # GPUs of one machine
STAGES = 8  # of a pipeline at most
MOST = 64  # GPUs that are tried to say how many would do


class PlanError(ValueError):
    """The question itself is wrong: it names the field and its limit."""


@dataclass(frozen=True, slots=True)
class Question:
    model: Model
    gpu: Gpu
    gpus: int
    context: int | None = None
    concurrency: int = 1
    gpus_per_node: int = NODE

    def __post_init__(self) -> None:
        for name in ("gpus", "concurrency", "gpus_per_node"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1")
        if self.context is not None and not 1 <= self.context <= self.model.context:
            limit = f"{self.model.name} takes 1 to {self.model.context:,}"
            raise PlanError(f"context {self.context:,} is out of range: {limit} tokens")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay the model out, whether or not it fits. `sequences` are those one replica holds at once."""

    arguments: Arguments
    memory: Memory
    replicas: int
    sequences: int
    advice: Advice | None

    @property
    def name(self) -> str:
        return f"TP{self.arguments.tensor_parallel_size} x PP{self.arguments.pipeline_parallel_size}"

    @property
    def shortfall(self) -> str:
        """Why it is not good enough; empty if it is."""
        have, tokens = self.memory, f"{self.arguments.max_model_len:,} tokens"
        if have.weights >= have.usable:
            return f"weights of {have.weights:.1f} GiB per GPU, {have.usable:.1f} GiB usable"
        if self.sequences == 0:
            rest = f"{have.usable - have.weights:.1f} GiB left beside the weights"
            return f"{rest}, {have.reserve:.1f} GiB of it reserved: no room for one sequence of {tokens}"
        if self.sequences < ENOUGH:
            return (
                f"KV cache of {have.kv:.1f} GiB per GPU: {self.sequences} of {ENOUGH} sequences of {tokens}"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Rejected:
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    question: Question
    layout: Layout
    rejected: tuple[Rejected, ...]
    notes: tuple[str, ...]

    @property
    def sequences(self) -> int:
        return self.layout.sequences * self.layout.replicas

    @property
    def idle(self) -> int:
        return self.question.gpus - self.layout.replicas * self.layout.arguments.gpus

    @property
    def anchors(self) -> Sequence[Anchor]:
        """Published figures of one such replica at the concurrency it would see."""
        arguments, question = self.layout.arguments, self.question
        share = question.concurrency / self.layout.replicas
        parallel = arguments.tensor_parallel_size, arguments.pipeline_parallel_size
        return anchors.around(question.model.shape.name, question.gpu.name, *parallel, share)


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Nothing fits: why each layout does not, and what would."""

    question: Question
    rejected: tuple[Rejected, ...]
    instead: str


def plan(question: Question) -> Plan | NoPlan:
    for context in contexts(question):
        tried = layouts(question, context)
        good = [layout for layout in tried if not layout.shortfall]
        if good:
            return _settled(question, tried, preferred(good))
    for context in contexts(question):
        tried = layouts(question, context)
        if any(layout.sequences for layout in tried):
            return _settled(
                question, tried, max(tried, key=lambda layout: layout.sequences * layout.replicas)
            )
    return NoPlan(question, _rejections(layouts(question, context)), _instead(question))


def contexts(question: Question) -> Iterator[int]:
    """The one asked for; else the model's, then halves of it."""
    if question.context is not None:
        yield question.context
        return
    tokens = question.model.context
    while tokens >= min(SHORTEST, question.model.context):
        yield tokens
        tokens //= 2


def layouts(question: Question, context: int) -> list[Layout]:
    """Every layout that the GPUs allow, the fewest GPUs first."""
    pairs = parallel_sizes(question)
    return [layout for pair in pairs if (layout := _lay_out(question, context, *pair)).replicas]


def parallel_sizes(question: Question) -> Iterator[tuple[int, int]]:
    """Tensor parallel by powers of two that share the heads, within one machine; then whole machines in a row."""
    tensor = 1
    for size in (2**power for power in range(question.gpus_per_node.bit_length())):
        if question.model.shape.splits(size):
            yield size, 1
            tensor = size
    for stages in range(2, min(STAGES, question.gpus // tensor) + 1):
        yield tensor, stages


def spread(question: Question, tensor: int, stages: int) -> tuple[int, int]:
    """Replicas, and the machines that each is spread over evenly; the stages of one machine are its own."""
    machines, rest = divmod(question.gpus, question.gpus_per_node)
    size, groups = tensor * stages, question.gpus_per_node // tensor
    if size <= question.gpus_per_node:
        return machines * (question.gpus_per_node // size) + rest // size, 1
    whole = machines + (rest // tensor >= groups)
    nodes = stages // groups
    return (0 if stages % groups else whole // nodes), nodes


def preferred(good: Sequence[Layout]) -> Layout:
    advised = [layout for layout in good if layout.advice and layout.advice.preferred]
    return (advised or good)[0]


def _lay_out(question: Question, context: int, tensor: int, stages: int) -> Layout:
    model, gpu = question.model, question.gpu
    replicas, nodes = spread(question, tensor, stages)
    place = (gpu.name, tensor) if stages == 1 else None
    advice = next((a for a in model.advice if (a.gpu, a.tensor_parallel) == place), None)
    arguments = Arguments(
        tensor_parallel_size=tensor,
        pipeline_parallel_size=stages,
        max_model_len=context,
        max_num_seqs=step_sequences(gpu, question.concurrency, replicas),
        max_num_batched_tokens=(advice and advice.batched_tokens) or gpu.batched_tokens,
        gpu_memory_utilization=(advice and advice.utilization) or UTILIZATION,
        kv_cache_dtype="fp8" if any(a.fp8_cache for a in model.advice if a.gpu == gpu.name) else "auto",
        enable_expert_parallel=model.expert_parallel and tensor > 1,
        nodes=nodes,
    )
    room = memory(model, gpu, arguments)
    held = min(sequences(model, arguments, room.kv), arguments.max_num_seqs)
    return Layout(arguments, room, replicas, held, advice)


def step_sequences(gpu: Gpu, concurrency: int, replicas: int) -> int:
    share = math.ceil(concurrency / max(1, replicas))
    return min(gpu.sequences, max(STEP, 1 << (share - 1).bit_length()))


def _settled(question: Question, tried: Sequence[Layout], chosen: Layout) -> Plan:
    smaller = [layout for layout in tried if layout.arguments.gpus < chosen.arguments.gpus]
    return Plan(question, chosen, _rejections(smaller, chosen), tuple(_notes(question, chosen)))


def _rejections(tried: Sequence[Layout], chosen: Layout | None = None) -> tuple[Rejected, ...]:
    advised = f"{chosen.name} is advised: {chosen.advice.why}" if chosen and chosen.advice else ""
    return tuple(Rejected(layout.name, layout.shortfall or advised) for layout in tried)


def _notes(question: Question, chosen: Layout) -> Iterator[str]:
    model, context = question.model, chosen.arguments.max_model_len
    if chosen.advice is not None:
        yield chosen.advice.why
    if question.context is None and context < model.context:
        yield f"context limited to {context:,} of {model.context:,} tokens, so that {ENOUGH} sequences fit"
    if chosen.shortfall:
        yield f"tight: {chosen.shortfall}"
    held, asked = chosen.sequences * chosen.replicas, question.concurrency
    if held < asked:
        needed = math.ceil(asked / chosen.sequences) * chosen.arguments.gpus
        yield f"{held:,} of {asked:,} sequences of full length run at once, the others wait: {needed:,} GPUs hold all"
    if idle := question.gpus - chosen.replicas * chosen.arguments.gpus:
        yield f"{idle} of {question.gpus} GPUs are left over"


def _instead(question: Question) -> str:
    for gpus in range(question.gpus + 1, MOST + 1):
        wider = Question(question.model, question.gpu, gpus, question.context, 1, question.gpus_per_node)
        tried = [each for context in contexts(wider) for each in layouts(wider, context)]
        if fits := next((layout for layout in tried if layout.sequences), None):
            return f"{gpus} x {question.gpu.name} hold it as {fits.name}"
    return f"not even {MOST} x {question.gpu.name} hold it"
