"""Published output tokens/s of one replica. Nothing is interpolated: a plan shows the figures on either side.

Figures that count input tokens too are left out, since nothing says how many of each there were.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BURST = 1000  # prompts at once

GPUSTACK = "gpustack performance lab"
BURST_LOAD = "burst of 1,000 ShareGPT prompts"


@dataclass(frozen=True, slots=True)
class Anchor:
    """`shape` names the architecture; a fine-tune of it is as fast."""

    shape: str
    gpu: str
    tensor_parallel: int
    pipeline_parallel: int
    concurrency: int
    tokens_per_second: int
    load: str
    engine: str
    source: str


ANCHORS = (
    Anchor("gpt-oss-120b", "h100", 1, 1, 4, 453, "concurrency 4", "vLLM 0.10.2", GPUSTACK),
    Anchor("gpt-oss-120b", "h100", 1, 1, BURST, 2901, BURST_LOAD, "vLLM 0.10.2", GPUSTACK),
    Anchor("gpt-oss-120b", "h100", 2, 1, 4, 646, "concurrency 4", "vLLM 0.10.2", GPUSTACK),
    Anchor("gpt-oss-120b", "h100", 2, 1, BURST, 7649, BURST_LOAD, "vLLM 0.10.2", GPUSTACK),
    Anchor("gpt-oss-120b", "h100", 4, 1, BURST, 11327, BURST_LOAD, "vLLM 0.10.2", GPUSTACK),
    Anchor("gpt-oss-120b", "h200", 8, 1, 8, 1948, "concurrency 8", "vLLM, good build", "vllm#30326"),
    Anchor("gpt-oss-120b", "h200", 8, 1, 128, 12781, "concurrency 128", "vLLM, good build", "vllm#30326"),
    Anchor("gpt-oss-120b", "b200", 1, 1, 1, 215, "concurrency 1", "vLLM 0.13", "InferenceX#393"),
    Anchor("gpt-oss-120b", "b200", 1, 1, 20, 1370, "concurrency 20", "vLLM 0.13", "InferenceX#393"),
    Anchor("gpt-oss-120b", "b200", 1, 1, 50, 2427, "concurrency 50", "vLLM 0.13", "InferenceX#393"),
    Anchor("gpt-oss-120b", "b200", 1, 1, 100, 3663, "concurrency 100", "vLLM 0.13", "InferenceX#393"),
    Anchor("gpt-oss-120b", "b200", 1, 1, 200, 5051, "concurrency 200", "vLLM 0.13", "InferenceX#393"),
    Anchor("gpt-oss-120b", "b200", 1, 1, 300, 5725, "concurrency 300", "vLLM 0.13", "InferenceX#393"),
    Anchor("gpt-oss-120b", "a100-80", 1, 1, BURST, 2405, BURST_LOAD, "vLLM 0.11", GPUSTACK),
    Anchor("gpt-oss-120b", "a100-80", 2, 1, BURST, 3765, BURST_LOAD, "vLLM 0.11", GPUSTACK),
    Anchor("gpt-oss-20b", "h100", 1, 1, BURST, 9064, BURST_LOAD, "vLLM 0.11", GPUSTACK),
    Anchor("gpt-oss-20b", "a100-80", 1, 1, BURST, 5180, BURST_LOAD, "vLLM 0.11", GPUSTACK),
    Anchor("deepseek-r1", "h200", 8, 1, BURST, 2621, "burst of 1,000 prompts", "vLLM 0.11", GPUSTACK),
)


def around(
    shape: str, gpu: str, tensor_parallel: int, pipeline_parallel: int, concurrency: float
) -> Sequence[Anchor]:
    """The figures measured at the next lower and the next higher concurrency; of an equal one, that alone."""
    place = (shape, gpu, tensor_parallel, pipeline_parallel)
    known = sorted(
        (a for a in ANCHORS if (a.shape, a.gpu, a.tensor_parallel, a.pipeline_parallel) == place),
        key=lambda anchor: anchor.concurrency,
    )
    below = [anchor for anchor in known if anchor.concurrency <= concurrency][-1:]
    if below and below[0].concurrency == concurrency:
        return below
    return below + [anchor for anchor in known if anchor.concurrency > concurrency][:1]
