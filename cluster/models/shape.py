"""What a model's attention keeps for each token: the arithmetic that a plan's memory rests on. Pure."""

from dataclasses import dataclass

BF16 = 2  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Dimensions that memory and parallelism depend on.

    `windowed_layers` of `layers` keep at most `window` tokens. With `latent` set, attention keeps that
    many values per token and layer in place of keys and values, and every shard keeps all of them.
    """

    name: str
    layers: int
    heads: int
    kv_heads: int = 0
    head_dim: int = 0
    hidden: int
    vocabulary: int
    windowed_layers: int = 0
    window: int = 0
    latent: int = 0
    experts_per_token: int = 1
    intermediate: int  # of one expert, where there are experts

    @property
    def full_layers(self) -> int:
        return self.layers - self.windowed_layers

    def splits(self, tensor_parallel: int) -> bool:
        """Whether that many shards can share the heads; keys and values may be held twice."""
        if self.heads % tensor_parallel:
            return False
        many, few = max(self.kv_heads, tensor_parallel), min(self.kv_heads, tensor_parallel)
        return bool(self.latent) or many % few == 0

    def layer_bytes(self, tensor_parallel: int, element: int = BF16) -> int:
        """KV bytes of one token in one layer, on one shard."""
        if self.latent:
            return self.latent * element
        heads = max(1, self.kv_heads // tensor_parallel)
        return 2 * heads * self.head_dim * element

    def token_bytes(self, tensor_parallel: int = 1, element: int = BF16) -> int:
        """What each further token of a sequence costs on one shard: layers without a window only."""
        return self.full_layers * self.layer_bytes(tensor_parallel, element)

    def window_bytes(self, tensor_parallel: int = 1, element: int = BF16) -> int:
        """What a sequence of any length costs beside that, on one shard."""
        return self.windowed_layers * self.window * self.layer_bytes(tensor_parallel, element)

    def sequence_bytes(self, tokens: int, tensor_parallel: int = 1, element: int = BF16) -> int:
        grows = tokens * self.token_bytes(tensor_parallel, element)
        return grows + self.windowed_layers * min(tokens, self.window) * self.layer_bytes(
            tensor_parallel, element
        )

    def batch_bytes(self, batched_tokens: int, tensor_parallel: int = 1, element: int = BF16) -> int:
        """Windowed layers hold a step's whole batch before they drop what has left the window."""
        return self.windowed_layers * batched_tokens * self.layer_bytes(tensor_parallel, element)
