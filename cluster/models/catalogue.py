"""Models that are known to work, with what has to be known to start and to sample them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Lengths in tokens. `weights_gib` is the checkpoint's size, all shards together."""

    name: str
    hub_id: str
    context_length: int
    weights_gib: float
    attention_heads: int
    temperature: float
    top_p: float
    tensor_parallel_size: int = 1

    def splits_into(self, shards: int) -> bool:
        """Whether tensor parallelism can divide the attention heads evenly."""
        return self.attention_heads % shards == 0


MODELS = {
    model.name: model
    for model in (
        Model(
            name="smollm2-135m",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            context_length=8192,
            weights_gib=0.5,
            attention_heads=9,
            temperature=0.2,
            top_p=0.9,
        ),
        Model(
            name="gpt-oss-20b",
            hub_id="openai/gpt-oss-20b",
            context_length=131_072,
            weights_gib=12.9,
            attention_heads=64,
            temperature=1.0,
            top_p=1.0,
        ),
        # Two shards on 80 GB GPUs: the weights fit in one, but leave no room for a batch.
        Model(
            name="gpt-oss-120b",
            hub_id="openai/gpt-oss-120b",
            context_length=131_072,
            weights_gib=60.8,
            attention_heads=64,
            temperature=1.0,
            top_p=1.0,
            tensor_parallel_size=2,
        ),
    )
}
