"""How long the simulated engine takes, and what it holds: the part of it that the scaling simulation shares. Pure."""

from dataclasses import dataclass
from math import ceil

BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SimTiming:
    """How fast the simulated engine is. Seconds and tokens; `scale` 0 is as fast as possible."""

    prefill_tokens_per_s: float = 15_000.0
    step_s: float = 0.006
    step_s_per_turn: float = 0.00003
    kv_blocks: int = 16_384
    max_num_seqs: int = 128
    max_batch_tokens: int = 8192
    scale: float = 1.0

    def step_seconds(self, running: float, prefilled: float) -> float:
        """One step: `running` turns are in the batch, and `prefilled` prompt tokens are computed."""
        batch = self.step_s + self.step_s_per_turn * running
        return self.scale * (batch + prefilled / self.prefill_tokens_per_s)


def blocks(prompt: int, max_tokens: int) -> int:
    """KV blocks that a turn is given, from its admission to its end."""
    return ceil((prompt + max_tokens) / BLOCK_TOKENS)
