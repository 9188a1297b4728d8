"""What one GPU of a replica holds: weights, KV cache, and what an engine needs beside them. Pure.

The reserve is an estimate, on the careful side of the few reports there are; vLLM measures its own at start.
"""

import math
from dataclasses import dataclass

from cluster.models.catalogue import Model
from cluster.models.gpus import GIB, Gpu
from cluster.models.shape import BF16

CONTEXT_GIB = 1.0  # CUDA context, handles of the libraries, fragments
COLLECTIVE_GIB = 0.3  # buffers of shards that talk to each other
GRAPHS_GIB = 0.5  # captured graphs, and for each sequence of a step:
GRAPHS_GIB_PER_SEQUENCE = 2 / 1024
LOGIT_BYTES = 16  # logits, probabilities and their sorted copy, for each sequence and word


@dataclass(frozen=True, slots=True)
class Arguments:
    """Engine arguments that a plan sets, by the names of the engine's settings."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str = "auto"
    enable_expert_parallel: bool = False
    nodes: int = 1

    @property
    def gpus(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def element(self) -> int:
        """Bytes of one number in the KV cache."""
        return 1 if self.kv_cache_dtype.startswith("fp8") else BF16


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB of each GPU. `kv` is what is left of `usable`; below zero the engine does not start."""

    usable: float
    weights: float
    reserve: float

    @property
    def kv(self) -> float:
        return self.usable - self.weights - self.reserve


def memory(model: Model, gpu: Gpu, arguments: Arguments) -> Memory:
    return Memory(
        usable=gpu.memory_gib * arguments.gpu_memory_utilization,
        weights=weights(model, arguments),
        reserve=reserve(model, arguments),
    )


def weights(model: Model, arguments: Arguments) -> float:
    padded = 1 + model.split_overhead if arguments.tensor_parallel_size > 1 else 1
    return model.weights_gib * padded / arguments.tensor_parallel_size * largest_stage(model, arguments)


def reserve(model: Model, arguments: Arguments) -> float:
    shape, sequences = model.shape, arguments.max_num_seqs
    activations = shape.experts_per_token * (3 * shape.intermediate + shape.hidden) * BF16
    return (
        CONTEXT_GIB
        + (COLLECTIVE_GIB if arguments.gpus > 1 else 0)
        + GRAPHS_GIB
        + GRAPHS_GIB_PER_SEQUENCE * sequences
        + sequences * shape.vocabulary * LOGIT_BYTES / GIB
        + arguments.max_num_batched_tokens * activations / GIB
    )


def sequences(model: Model, arguments: Arguments, kv_gib: float) -> int:
    """How many sequences of full length the KV cache holds at once."""
    shape, tensor, part = model.shape, arguments.tensor_parallel_size, largest_stage(model, arguments)
    batch = shape.batch_bytes(arguments.max_num_batched_tokens, tensor, arguments.element) * part
    one = shape.sequence_bytes(arguments.max_model_len, tensor, arguments.element) * part
    return max(0, int((kv_gib * GIB - batch) / one))


def largest_stage(model: Model, arguments: Arguments) -> float:
    """The part of the layers in the stage that has most of them."""
    layers = model.shape.layers
    return math.ceil(layers / arguments.pipeline_parallel_size) / layers
