"""Build a tiny gpt-oss: random weights in the real architecture, behind the real tokenizer.

Attention sinks, a sliding window on every second layer, experts, YaRN and the whole vocabulary are there, so
tests on it meet what the real checkpoints meet. Its eight heads and four key-value heads can be
split in four; heads of 64 and widths of whole 32s are what the CPU kernels take. bfloat16 is the only
type that vLLM's experts run in on CPUs.
"""

import argparse
import json
from pathlib import Path

from cluster.models.harmony import STOP_IDS, write_tokenizer
from cluster.models.staging import reusable, staged

CONTEXT_LENGTH = 131_072
VOCAB_SIZE = 201_088
SEED = 20
RECIPE = "tiny-gptoss/1"  # counts up when the build writes something else


def build(target: Path) -> Path:
    """Make `target` a tiny gpt-oss checkpoint of 66 MB and return it; about 20 s the first time.

    The same seed gives the same weights. Raises CheckpointError when a present folder was changed.
    """
    if reusable(target, RECIPE):
        return target
    with staged(target, RECIPE) as stage:
        write_weights(stage)
        write_tokenizer(stage)
        defaults = {
            "bos_token_id": 199_998,
            "eos_token_id": STOP_IDS,
            "pad_token_id": 199_999,
            "do_sample": True,
        }
        (stage / "generation_config.json").write_text(json.dumps(defaults, indent=1))
    return target


def write_weights(folder: Path) -> None:
    import torch
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        num_local_experts=4,
        num_experts_per_tok=2,
        vocab_size=VOCAB_SIZE,
        sliding_window=128,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150_000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
        # Weights larger than the usual 0.02 keep greedy output from settling on one token.
        initializer_range=0.3,
        eos_token_id=STOP_IDS[0],
        pad_token_id=199_999,
        dtype="bfloat16",
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = GptOssForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the tiny gpt-oss checkpoint.")
    parser.add_argument("--to", type=Path, required=True, help="checkpoint folder to make or check")
    print(build(parser.parse_args().to))


if __name__ == "__main__":
    main()
