"""Stage a checkpoint from a hub or a folder: what is there stays there, what arrives is compared with the index.

A stage folder beside the target takes the files. It is named by the commit, so that an interrupted fetch goes on
where it stopped and two versions never mix; complete and compared, it takes the target's name in one step.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.models.checkpoint import INDEX, require_shards, verify_checkpoint
from cluster.models.staging import TOKENIZER, CheckpointError, publish, read_manifest, verify

PART = ".part"
# What `services.text` reads of a checkpoint; not every checkpoint has the last two.
TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)
RETRIES = 5  # of one file without a byte of progress
GB = 1e9


class FetchError(Exception):
    """What went wrong and what to do about it."""

    def __init__(self, what: str, do: str = "") -> None:
        super().__init__(what)
        self.what, self.do = what, do


class Unreachable(FetchError):
    """The source does not answer."""


class Refused(FetchError):
    """The source does not give it: not there, gated, or not for this token."""


class Dropped(Exception):
    """A connection ended early; what arrived is good."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the index, with whichever digest the source knows: sha256, or that of a git blob."""

    name: str
    size: int
    sha256: str = ""
    git_sha1: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    origin: str  # what the manifest names as the source
    revision: str
    files: tuple[File, ...]
    only: str = ""  # the part of the checkpoint that the source has; empty: all of it


class Source(Protocol):
    def listing(self) -> Listing:
        """Raises Unreachable or Refused."""
        ...

    def read(self, file: File, offset: int) -> Iterator[bytes]:
        """The file's bytes from there on. Raises Dropped, Unreachable or Refused."""
        ...


class Report(Protocol):
    def begin(self, listing: Listing, missing: int) -> None: ...
    def advance(self, count: int) -> None: ...
    def finished(self, file: File) -> None: ...


class Seal:
    """The digests of a file as it arrives."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._sha256.update(data)
        if self._file.git_sha1:
            self._git.update(data)

    def check(self) -> None:
        """Raises CheckpointError when the digest is not the index's."""
        file = self._file
        pairs = ("sha256", file.sha256, self._sha256), ("git digest", file.git_sha1, self._git)
        for kind, want, have in pairs:
            if want and have.hexdigest() != want:
                raise CheckpointError(
                    f"{file.name}: its {kind} is {have.hexdigest()[:16]}, the index says {want[:16]}"
                )


def fetch(
    source: Source,
    target: Path,
    report: Report,
    pause: Callable[[float], None],
    *,
    only: str = "",
    wait: bool = False,
) -> Listing:
    """Make `target` the complete checkpoint, or with `only` that part of it.

    With `wait` a fetch of the same to the same folder is waited for. Raises FetchError or CheckpointError;
    the stage stays then.
    """
    listing = part_of(source.listing(), only)
    stage = target.with_name(
        f".{target.name}.{listing.revision[:12] or 'folder'}{only and '-'}{only}.partial"
    )
    if is_present(target, listing):
        return listing
    with alone(stage, wait=wait):
        if is_present(target, listing):  # by whoever was waited for
            return listing
        missing = sum(file.size for file in listing.files) - arrived(stage, listing)
        check_space(stage, missing)
        report.begin(listing, missing)
        for file in sorted(listing.files, key=lambda file: (file.name.endswith(".safetensors"), file.name)):
            fetch_file(source, file, stage, report, pause)
            if file.name == INDEX:
                require_shards(stage / INDEX, {each.name for each in listing.files})
        drop_strangers(stage, listing)
        verify_checkpoint(stage)
        known = {file.name: file.sha256 for file in listing.files if file.sha256}
        publish(stage, target, listing.origin, listing.revision, known, only)
    return listing


def part_of(listing: Listing, only: str) -> Listing:
    """The files of that part. Raises Refused when the source has less than is asked for."""
    if listing.only and listing.only != only:
        what = f"the folder of {listing.origin} has the files of the {listing.only} and no weights"
        raise Refused(what, "Give a whole one with --from, or fetch it with --only.")
    if only != TOKENIZER:
        return listing
    files = tuple(file for file in listing.files if file.name in TEXT_FILES)
    if TEXT_FILES[1] not in {file.name for file in files}:
        raise Refused(f"{listing.origin} has no {TEXT_FILES[1]}", "Leave --only out.")
    return Listing(listing.origin, listing.revision, files, only)


def is_present(target: Path, listing: Listing) -> bool:
    """Whether the folder has what is asked for. Raises FetchError when it holds something else, or was changed."""
    if not target.exists() or not any(target.iterdir()):
        return False
    manifest = read_manifest(target) or {}
    part, origin = manifest.get("only", ""), manifest.get("source", "files that no fetch wrote")
    if origin != listing.origin or part not in ("", listing.only):
        holds = f"{origin}, the {part}'s files only" if part else origin
        raise FetchError(
            f"{target} holds {holds}, not {listing.origin}", "Remove it, or choose another with --to."
        )
    try:
        verify(target)
    except CheckpointError as error:
        raise FetchError(str(error), f"Remove {target} and run the same command again.") from error
    return True


def staged(target: Path, origin: str, only: str = "") -> bool:
    """Whether the pinned commit `origin` is there and whole, so that no source has to be asked. Raises FetchError."""
    if not target.is_dir() or (read_manifest(target) or {}).get("source") != origin:
        return False
    return is_present(target, Listing(origin, "", (), only))


@contextmanager
def alone(stage: Path, *, wait: bool = False) -> Iterator[None]:
    """One fetch of this commit to this folder at a time; the lock ends with the process that holds it."""
    stage.mkdir(parents=True, exist_ok=True)
    lock = os.open(stage, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise FetchError(f"another fetch is at work in {stage}", "Wait for it to end.") from None
    finally:
        os.close(lock)


def arrived(stage: Path, listing: Listing) -> int:
    """Bytes of the index that are in the stage already."""
    return sum(min(file.size, size_of(stage, file)) for file in listing.files)


def size_of(stage: Path, file: File) -> int:
    for path in (stage / file.name, stage / f"{file.name}{PART}"):
        if path.is_file():
            return path.stat().st_size
    return 0


def check_space(stage: Path, missing: int) -> None:
    free = shutil.disk_usage(stage).free
    if missing > free:
        what = f"{stage.parent} needs {missing / GB:.1f} GB more, has {free / GB:.1f} GB free"
        raise FetchError(what, "Free some space, or choose another disk with --to.")


def fetch_file(
    source: Source, file: File, stage: Path, report: Report, pause: Callable[[float], None]
) -> None:
    """A file gets its name once its digest is the index's, so one that has its name needs no second look."""
    done, part = stage / file.name, stage / f"{file.name}{PART}"
    if done.is_file() and done.stat().st_size == file.size:
        return
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    seal = Seal(file)
    resume(part, seal)
    receive(source, file, part, seal, report, pause)
    try:
        seal.check()
    except CheckpointError:
        part.unlink()
        raise
    part.rename(done)
    report.finished(file)


def resume(part: Path, seal: Seal) -> None:
    if part.is_file():
        with part.open("rb") as file:
            while chunk := file.read(1 << 20):
                seal.update(chunk)


def receive(
    source: Source, file: File, part: Path, seal: Seal, report: Report, pause: Callable[[float], None]
) -> None:
    """Append what is missing, again and again while connections drop but something arrives."""
    idle = 0
    with part.open("ab") as out:
        while (before := out.tell()) < file.size:
            try:
                for chunk in source.read(file, before):
                    out.write(chunk)
                    seal.update(chunk)
                    report.advance(len(chunk))
                if out.tell() < file.size:
                    raise Dropped("it ended early")
            except Dropped as error:
                idle = idle + 1 if out.tell() == before else 0
                if idle > RETRIES:
                    do = "Run the same command again: it goes on there."
                    raise Unreachable(f"{file.name}: {error}", do) from error
                pause(min(2.0**idle, 30.0))
        if out.tell() > file.size:
            out.truncate(0)
            raise CheckpointError(f"{file.name} is longer than the index says: {file.size:,} bytes")
        os.fsync(out.fileno())


def drop_strangers(stage: Path, listing: Listing) -> None:
    names = {file.name for file in listing.files}
    for path in stage.iterdir():
        if path.name not in names:
            path.unlink()
