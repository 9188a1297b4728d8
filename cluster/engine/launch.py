"""How a vLLM engine is to be started: its settings and the environment they imply."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

# Engines never reach for the network: no hub look-ups, no usage reports.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
}

# vLLM's executor for a shard that computes in the engine core's own process.
LONE_SHARD = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


class VllmSettings(BaseModel):
    """Everything that may be chosen about a vLLM engine; other engine arguments stay at our values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str = Field(min_length=1, description="folder with the weights")
    served_model_name: str = Field(
        default="", description="model in vLLM's own metrics; a replica gives its own"
    )
    tensor_parallel_size: PositiveInt = 1
    pipeline_parallel_size: PositiveInt = 1
    nodes: PositiveInt = Field(default=1, description="nodes over which the shards are spread evenly")
    max_model_len: PositiveInt = 4096
    max_num_seqs: PositiveInt = 128
    max_num_batched_tokens: PositiveInt | None = Field(
        default=None, description="of one step; None: vLLM's own"
    )
    dtype: str = Field(default="auto", description='"auto" on CPUs is float32, bfloat16 for gpt-oss')
    kv_cache_gib: PositiveInt = Field(default=1, description="KV cache on CPUs, GiB per shard")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, lt=1)
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    enable_expert_parallel: bool = Field(default=False, description="whole experts on each shard, not slices")
    enforce_eager: bool | None = Field(default=None, description="no compilation; None is so on CPUs only")
    omp_threads_bind: str = Field(
        default="auto", description='cores per shard of a node on CPUs, such as "0|1"'
    )
    logits_processors: tuple[str, ...] = Field(default=(), description="import paths; for tests")

    @property
    def shards(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def shards_per_node(self) -> int:
        return self.shards // self.nodes

    @model_validator(mode="after")
    def _spread_evenly(self) -> Self:
        if self.shards % self.nodes:
            raise ValueError(f"nodes is {self.nodes}, which does not divide the {self.shards} shards")
        return self


@dataclass(frozen=True, slots=True)
class Place:
    """One node of an engine: its rank, its address with the interface that has it, and the address
    and port of the first node, where the shards of all nodes meet."""

    rank: int
    address: str
    interface: str
    master: str
    port: int


def environment(settings: VllmSettings, place: Place | None = None) -> dict[str, str]:
    """Variables that must be set before vLLM is imported."""
    return OFFLINE | {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": settings.omp_threads_bind,
        **(network(place) if place else {}),
    }


def network(place: Place) -> dict[str, str]:
    """Shards of several nodes speak over the network that Ray uses, not over what the host's name resolves to."""
    names = {"VLLM_HOST_IP": place.address, "GLOO_SOCKET_IFNAME": place.interface}
    return {name: value for name, value in names.items() if value}
