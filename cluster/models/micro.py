"""Build a micro Llama: random weights behind the real SmolLM2 tokenizer and chat template.

It speaks nonsense at thousands of tokens per second on a laptop, which is what tests of mechanics
and load need. Four heads let two shards split it; heads of 32 are the
smallest that the CPU attention kernel takes; no end token is declared, so every generation runs
to its max_tokens.
"""

import argparse
import shutil
from pathlib import Path

from cluster.models.smollm2 import RECIPE, prepare
from cluster.models.staging import reusable, staged

CONTEXT_LENGTH = 2048
VOCAB_SIZE = 49152
SEED = 20

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def build(target: Path, smollm2: Path) -> Path:
    """Make `target` a micro checkpoint and return it; `smollm2` is the prepared SmolLM2 folder.

    The same seed gives the same weights. Raises CheckpointError when a present folder was changed.
    """
    if reusable(target, RECIPE):
        return target
    with staged(target, RECIPE) as stage:
        write_weights(stage)
        for name in TOKENIZER_FILES:
            if (smollm2 / name).is_file():
                shutil.copyfile(smollm2 / name, stage / name)
    return target


def write_weights(folder: Path) -> None:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        # Weights larger than the usual 0.02 keep greedy output from settling on one token.
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    GenerationConfig().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the micro Llama checkpoint.")
    parser.add_argument("--to", type=Path, required=True, help="checkpoint folder to make or check")
    parser.add_argument("--smollm2", type=Path, required=True, help="SmolLM2 folder, prepared if absent")
    options = parser.parse_args()
    print(build(options.to, prepare(options.smollm2)))


if __name__ == "__main__":
    main()
