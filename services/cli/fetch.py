"""`headrace fetch`: a checkpoint onto this machine."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cluster.models import fetch as staging
from cluster.models.catalogue import UnknownModel, find
from cluster.models.fetch import GB, FetchError, File, Listing
from cluster.models.sources import COMMIT, source_of
from cluster.models.staging import TOKENIZER, CheckpointError
from deploy.local.home import Home
from services.cli.exits import FAILED, REFUSED, UNREACHABLE, USAGE, CliError, stop

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Bar:
    """Progress on stderr: a bar where somebody watches, a line for each file elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal
        )
        self._task = self._progress.add_task("")

    def begin(self, listing: Listing, missing: int) -> None:
        total = sum(file.size for file in listing.files)
        of = f"{missing / GB:.1f} of {total / GB:.1f} GB" if missing < total else f"{total / GB:.1f} GB"
        self._console.print(f"Fetching {listing.origin}: {len(listing.files)} files, {of}", soft_wrap=True)
        self._progress.start()
        self._progress.update(self._task, total=total, completed=total - missing)

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def finished(self, file: File) -> None:
        self._progress.update(self._task, description=file.name)
        if not self._console.is_terminal:
            self._console.print(f"  {file.name}  {file.size:,} bytes, digest as in the index", soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


@dataclass(frozen=True, slots=True)
class Wish:
    model: str
    to: Path | None
    place: str | None
    revision: str | None
    only: str | None
    wait: bool


def run(wish: Wish) -> None:
    if wish.only not in (None, TOKENIZER):
        stop(f"no part of a checkpoint is called {wish.only!r}", f"Give --only {TOKENIZER}.", code=USAGE)
    name, repository, pinned = _wanted(wish.model)
    target = (wish.to or Home.of(os.environ).cache / "models" / name).expanduser().absolute()
    try:
        origin = _settled(wish, target, repository, pinned) or _fetched(wish, target, repository, pinned)
    except CheckpointError as error:
        raise CliError(
            str(error), "Run the same command again; what arrived whole is kept.", code=FAILED
        ) from error
    except FetchError as error:
        raise CliError(error.what, error.do, code=_code(error)) from error
    except OSError as error:
        raise CliError(f"{error.filename or target}: {error.strerror}", code=FAILED) from error
    print(f"{target}  {origin}")


def _settled(wish: Wish, target: Path, repository: str, pinned: str | None) -> str | None:
    """The origin of a pinned commit that is there already: its hub may be away."""
    commit = wish.revision or pinned or ""
    origin = f"{repository}@{commit}"
    if _is_folder(wish.place) or not COMMIT.fullmatch(commit):
        return None
    return origin if staging.staged(target, origin, wish.only or "") else None


def _fetched(wish: Wish, target: Path, repository: str, pinned: str | None) -> str:
    bar = Bar()
    try:
        source = source_of(
            repository, wish.revision or (None if _is_folder(wish.place) else pinned), wish.place
        )
        listing = staging.fetch(source, target, bar, time.sleep, only=wish.only or "", wait=wish.wait)
    finally:
        bar.close()
    return listing.origin


def _is_folder(place: str | None) -> bool:
    return place is not None and not place.startswith(("http://", "https://"))


def _wanted(model: str) -> tuple[str, str, str | None]:
    """Name, repository and pinned revision; a repository outside the catalogue has no pin."""
    try:
        row = find(model)
    except UnknownModel as error:
        if REPOSITORY.fullmatch(model):
            return model.rpartition("/")[2].lower(), model, None
        do = "A repository of the hub, as owner/name, will do too."
        raise CliError(str(error), do, code=USAGE) from error
    return row.name, row.repository, row.revision


def _code(error: FetchError) -> int:
    if isinstance(error, staging.Unreachable):
        return UNREACHABLE
    return REFUSED if isinstance(error, staging.Refused) else FAILED
