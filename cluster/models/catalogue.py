"""The models that Headrace knows: where their weights are, what they need, and how they like to be run.

Each row is read by the planner (`planner.py`), by `headrace fetch` (`fetch.py`) and by the local bring-up.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from cluster.models.shape import Shape

Parser = Literal["harmony", "deepseek_r1", "chat_template"]
Format = Literal["mxfp4", "fp8", "bfloat16"]


class UnknownModel(Exception):
    """The message says which names are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a measurement or a recipe says about one GPU kind beyond the arithmetic of memory.

    With `preferred` this is the shape to take where there are GPUs enough; else it only says how the engine
    is to be set when it has this shape.
    """

    gpu: str
    tensor_parallel: int
    why: str
    preferred: bool = True
    utilization: float | None = None
    batched_tokens: int | None = None
    fp8_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`revision` is a commit of `repository`; None: `headrace fetch` asks the hub and records the answer.

    `split_overhead` is the part by which the weights grow once shards pad their tiles.
    """

    name: str
    repository: str
    revision: str | None = None
    shape: Shape
    context: int
    weights_gb: float
    format: Format = "bfloat16"
    split_overhead: float = 0.0
    expert_parallel: bool = False
    parser: Parser = "chat_template"
    temperature: float = 1.0
    top_p: float = 1.0
    advice: tuple[Advice, ...] = field(default=(), repr=False)

    @property
    def weights_gib(self) -> float:
        return self.weights_gb * 1e9 / (1 << 30)


TWO_ON_H100 = Advice(
    gpu="h100",
    tensor_parallel=2,
    why="measured 31.6 % more tokens/s per GPU than one H100 alone (gpustack performance lab)",
)
ALONE_ON_H100 = Advice(
    gpu="h100",
    tensor_parallel=1,
    why="one H100 runs out of memory at the default limits (vLLM recipe for gpt-oss)",
    preferred=False,
    utilization=0.95,
    batched_tokens=1024,
)
FOUR_ON_L40S = Advice(
    gpu="l40s", tensor_parallel=4, why="two L40S are left with about 5 GiB each for activations and KV cache"
)
FP8_ON_B200 = Advice(
    gpu="b200",
    tensor_parallel=1,
    why="the vLLM recipe for gpt-oss keeps the KV cache in fp8 on Blackwell",
    fp8_cache=True,
)

GPT_OSS_20B = Model(
    name="gpt-oss-20b",
    repository="openai/gpt-oss-20b",
    revision="6cee5e81ee83917806bbde320786a8fb61efebee",
    shape=Shape(
        name="gpt-oss-20b", layers=24, heads=64, kv_heads=8, head_dim=64, hidden=2880, vocabulary=201088,
        windowed_layers=12, window=128, experts_per_token=4, intermediate=2880,
    ),
    context=131072,
    weights_gb=13.83,
    format="mxfp4",
    split_overhead=0.131,
    parser="harmony",
    advice=(FP8_ON_B200,),
)  # fmt: skip
GPT_OSS_120B = replace(
    GPT_OSS_20B,
    name="gpt-oss-120b",
    repository="openai/gpt-oss-120b",
    revision="b5c939de8f754692c1647ca79fbf85e8c1e70f8a",
    shape=replace(GPT_OSS_20B.shape, name="gpt-oss-120b", layers=36, windowed_layers=18),
    weights_gb=65.28,
    advice=(TWO_ON_H100, ALONE_ON_H100, FOUR_ON_L40S, FP8_ON_B200),
)

DEEPSEEK_R1 = Model(
    name="deepseek-r1",
    repository="deepseek-ai/DeepSeek-R1",
    revision="56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad",
    shape=Shape(
        name="deepseek-r1", layers=61, heads=128, hidden=7168, vocabulary=129280,
        latent=576, experts_per_token=9, intermediate=2048,
    ),
    context=163840,
    weights_gb=676.0,  # of 690 on disk; the layer that guesses several tokens ahead is not loaded
    format="fp8",
    expert_parallel=True,
    parser="deepseek_r1",
    temperature=0.6,
    top_p=0.95,
)  # fmt: skip


def distill(
    size: str,
    revision: str,
    parameters: float,
    shape: tuple[int, int, int, int, int, int],
    repository: str = "",
) -> Model:
    """`shape`: layers, heads, KV heads, hidden, intermediate, vocabulary; `parameters` in 10^9, 2 bytes each."""
    layers, heads, kv_heads, hidden, intermediate, vocabulary = shape
    repository = repository or f"DeepSeek-R1-Distill-{size}"
    return Model(
        name=repository.lower(),
        repository=f"deepseek-ai/{repository}",
        revision=revision,
        shape=Shape(
            name=repository.lower(), layers=layers, heads=heads, kv_heads=kv_heads, head_dim=128, hidden=hidden,
            intermediate=intermediate, vocabulary=vocabulary,
        ),
        context=131072,
        weights_gb=2 * parameters,
        parser="deepseek_r1",
        temperature=0.6,
        top_p=0.95,
    )  # fmt: skip


# Greedy where a request says nothing. Asked for the capital of France, the 135M model in 4 bits said Paris in
# 45 of 60 answers at temperature 0.2 and top_p 0.9, the model card's values, and in all greedy ones.
SMOLLM2_TEMPERATURE = 0


def smollm2(
    size: str, parameters: float, shape: tuple[int, int, int, int, int], revision: str | None = None
) -> Model:
    """`shape`: layers, heads, KV heads, hidden, intermediate; `parameters` in 10^9, 2 bytes each."""
    layers, heads, kv_heads, hidden, intermediate = shape
    return Model(
        name=f"smollm2-{size.lower()}",
        repository=f"HuggingFaceTB/SmolLM2-{size}-Instruct",
        revision=revision,
        shape=Shape(
            name=f"smollm2-{size.lower()}", layers=layers, heads=heads, kv_heads=kv_heads, head_dim=64,
            hidden=hidden, intermediate=intermediate, vocabulary=49152,
        ),
        context=8192,
        weights_gb=2 * parameters,
        temperature=SMOLLM2_TEMPERATURE,
    )  # fmt: skip


CATALOGUE = (
    GPT_OSS_20B,
    GPT_OSS_120B,
    replace(GPT_OSS_20B, name="gpt-oss-safeguard-20b", repository="openai/gpt-oss-safeguard-20b", revision=None),
    replace(GPT_OSS_120B, name="gpt-oss-safeguard-120b", repository="openai/gpt-oss-safeguard-120b", revision=None),
    DEEPSEEK_R1,
    distill("Qwen-1.5B", "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562", 1.777, (28, 12, 2, 1536, 8960, 151936)),
    distill("Qwen-7B", "916b56a44061fd5cd7d6a8fb632557ed4f724f60", 7.616, (28, 28, 4, 3584, 18944, 152064)),
    distill("Qwen-14B", "1df8507178afcc1bef68cd8c393f61a886323761", 14.770, (48, 40, 8, 5120, 13824, 152064)),
    distill("Qwen-32B", "711ad2ea6aa40cfca18895e8aca02ab92df1a746", 32.764, (64, 40, 8, 5120, 27648, 152064)),
    distill("Llama-8B", "6a6f4aa4197940add57724a7707d069478df56b1", 8.030, (32, 32, 8, 4096, 14336, 128256)),
    distill("Llama-70B", "b1c0b44b4369b597ad119a196caf79a9c40e141e", 70.554, (80, 64, 8, 8192, 28672, 128256)),
    distill(
        "", "6e8885a6ff5c1dc5201574c8fd700323f23c25fa", 8.191, (36, 32, 8, 4096, 12288, 151936),
        "DeepSeek-R1-0528-Qwen3-8B",
    ),
    smollm2("135M", 0.1345, (30, 9, 3, 576, 1536), "12fd25f77366fa6b3b4b768ec3050bf629380bac"),
    smollm2("360M", 0.3618, (32, 15, 5, 960, 2560)),
    smollm2("1.7B", 1.7114, (24, 32, 32, 2048, 8192)),
)  # fmt: skip

# Short names. A repository's own name is one too, in any case.
ALIASES = {
    "20b": "gpt-oss-20b",
    "120b": "gpt-oss-120b",
    "safeguard-20b": "gpt-oss-safeguard-20b",
    "safeguard-120b": "gpt-oss-safeguard-120b",
    "r1": "deepseek-r1",
    "r1-qwen-1.5b": "deepseek-r1-distill-qwen-1.5b",
    "r1-qwen-7b": "deepseek-r1-distill-qwen-7b",
    "r1-qwen-14b": "deepseek-r1-distill-qwen-14b",
    "r1-qwen-32b": "deepseek-r1-distill-qwen-32b",
    "r1-llama-8b": "deepseek-r1-distill-llama-8b",
    "r1-llama-70b": "deepseek-r1-distill-llama-70b",
    "r1-qwen3-8b": "deepseek-r1-0528-qwen3-8b",
    "smollm2": "smollm2-135m",
} | {model.repository.lower(): model.name for model in CATALOGUE}
BY_NAME = {model.name: model for model in CATALOGUE}


def find(name: str) -> Model:
    """The row of a name, a short name or a repository. Raises UnknownModel."""
    asked = name.lower()
    model = BY_NAME.get(ALIASES.get(asked, asked))
    if model is None:
        raise UnknownModel(f"no model {name!r} is in the catalogue: it has {', '.join(BY_NAME)}")
    return model
