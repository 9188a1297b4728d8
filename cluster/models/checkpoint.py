"""Is a folder a whole checkpoint? Asked before an engine loads it: a partial shard costs minutes there, and
its error names no file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster.models.staging import CheckpointError, read_manifest, verify

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8  # before the header of a safetensors file: how long the header is
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def verify_checkpoint(folder: Path) -> None:
    """Raise CheckpointError, naming the file, when the folder cannot be loaded or is not what was staged.

    With a manifest every file has its size and its time, or else its digest; in any case the shards that
    the index lists are there, each as long as its own header says.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no checkpoint folder: it does not exist")
    manifest = read_manifest(folder)
    if manifest is not None:
        if only := manifest.get("only"):
            do = "remove it and fetch it without --only"
            raise CheckpointError(f"{folder} is partial: it has the files of the {only} and no weights; {do}")
        verify(folder)
    shards = shards_of(folder)
    for name in shards:
        check_shard(folder / name)


def shards_of(folder: Path) -> list[str]:
    """Names of the weight files: by the index, or all there are."""
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    index = folder / INDEX
    return require_shards(index, present) if index.is_file() else present


def require_shards(index: Path, present: Iterable[str]) -> list[str]:
    """What the index lists. Raises CheckpointError when one of it is not among `present`."""
    listed = sorted(set(listed_in(index)))
    if missing := [name for name in listed if name not in set(present)]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{index.parent / missing[0]}{more} missing: {index.name} lists {len(listed)} shards"
        )
    return listed


def listed_in(index: Path) -> Iterable[str]:
    try:
        names: list[str] = list(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is damaged") from None
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} lists something that is no file name")
    return names


def check_shard(path: Path) -> None:
    """A safetensors file starts with the offsets of its tensors; the last one is its end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(LONGEST_HEADER, size - LENGTH_BYTES):
            raise CheckpointError(f"{path} is partial or no safetensors file: {size:,} bytes")
        header = file.read(length)
    expected = LENGTH_BYTES + length + last_offset(path, header)
    if size != expected:
        raise CheckpointError(f"{path} is partial: {size:,} bytes of {expected:,}")


def last_offset(path: Path, header: bytes) -> int:
    try:
        tensors: dict[str, Any] = json.loads(header)
        tensors.pop("__metadata__", None)
        return max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise CheckpointError(f"{path} has a damaged header") from None
