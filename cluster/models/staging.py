"""A checkpoint folder is complete, with a manifest of its files, or absent.

The manifest has the size, the time and the sha256 of each file, so that a second look is a check of sizes
and times and not a second reading.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"  # a folder that has the files of the text side only


class CheckpointError(Exception):
    """The weights are absent, or not the ones that were pinned. The message names the file."""


class staged:  # lower case like the context managers of contextlib
    """Folder beside `target` that takes its place, complete and with a manifest, or not at all."""

    def __init__(self, target: Path, source: str) -> None:
        self._target, self._source = target, source

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._stage = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent))
        return self._stage

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._stage)
            return
        publish(self._stage, self._target, self._source)


def publish(
    stage: Path,
    target: Path,
    source: str,
    revision: str = "",
    known: Mapping[str, str] | None = None,
    only: str = "",
) -> None:
    """Give `stage` its manifest and the name `target` in one step; `known` are digests already compared, `only`
    the part of the checkpoint that it is."""
    # Images run the engine under another user than the one who prepared the weights.
    stage.chmod(0o755)
    for path in files_of(stage):
        path.chmod(0o644)
    write_manifest(stage, source, revision, known or {}, only)
    try:
        os.rename(stage, target)
    except OSError:
        # Another process was first; its folder is as good as this one.
        shutil.rmtree(stage)
        verify(target)


def write_manifest(
    folder: Path, source: str, revision: str, known: Mapping[str, str], only: str = ""
) -> None:
    files = {path.name: entry(path, known.get(path.name)) for path in files_of(folder)}
    optional = {"revision": revision, "only": only}
    document = {"source": source} | {key: text for key, text in optional.items() if text} | {"files": files}
    (folder / MANIFEST).write_text(json.dumps(document, indent=1))


def entry(path: Path, sha256: str | None = None) -> dict[str, str | int]:
    stat = path.stat()
    return {"sha256": sha256 or digest(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """None if there is none. Raises CheckpointError when it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
        for name, want in manifest["files"].items():
            str(name), str(want["sha256"]), int(want["size"]), int(want["mtime_ns"])
        str(manifest["source"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path} is damaged: remove the folder and stage it again") from None
    return dict(manifest)


def reusable(target: Path, source: str) -> bool:
    """Whether the folder was made from this source, and whole; what was made from another one goes.

    Raises CheckpointError when it was changed since.
    """
    manifest = read_manifest(target)
    if manifest is None:
        return False
    if manifest["source"] != source:
        shutil.rmtree(target)
        return False
    verify(target)
    return True


def verify(folder: Path, *, full: bool = False) -> None:
    """Raise CheckpointError, naming the file, when the folder is not what its manifest says.

    A copy of the folder keeps its digests but not its times, so a file whose time differs is
    digested even without `full`.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointError(f"{folder} has no {MANIFEST}")
    for name, want in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if (size := path.stat().st_size) != want["size"]:
            raise CheckpointError(f"{path} has another size: {size:,} bytes of {want['size']:,}")
        if (full or path.stat().st_mtime_ns != want["mtime_ns"]) and digest(path) != want["sha256"]:
            raise CheckpointError(f"{path} differs from its recorded sha256")
