"""What a machine without a GPU can run: the engine computes in float32 there. Pure."""

from dataclasses import dataclass

from cluster.models.catalogue import Model

FLOAT32_PER_BFLOAT16 = 2
KV_GIB = 1  # the engine's setting on CPUs unless another is given
ENGINE_GIB = 3  # torch, vLLM and their work space
CONTEXT = 8192  # tokens; what a CPU answers within patience


@dataclass(frozen=True, slots=True)
class CpuFit:
    model: Model
    needs_gib: float
    why_not: str

    @property
    def context(self) -> int:
        return min(self.model.context, CONTEXT)


def on_cpu(model: Model, memory_gib: float) -> CpuFit:
    if model.format != "bfloat16":
        return CpuFit(model, model.weights_gib, f"its {model.format} weights have no kernel on most CPUs")
    needs = FLOAT32_PER_BFLOAT16 * model.weights_gib + KV_GIB + ENGINE_GIB
    short = f"needs {needs:.1f} GiB in float32, {memory_gib:.1f} GiB are free" if needs > memory_gib else ""
    return CpuFit(model, needs, short)
