"""Where checkpoints come from: a hub that speaks Hugging Face's API, or a folder."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.models.fetch import Dropped, FetchError, File, Listing, Refused, Unreachable
from cluster.models.staging import digest, files_of, read_manifest

OTHER_FORMATS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".tflite")
COMMIT = re.compile(r"[0-9a-f]{40}")
BUSY = (429, 500, 502, 503, 504)
PATIENCE = 60.0  # seconds without a byte
CHUNK = 1 << 20


def wanted(files: Iterable[File], origin: str) -> tuple[File, ...]:
    """What an engine reads: no second copy of the weights in another format or in a folder, no dot files.

    Raises Refused when that is no checkpoint.
    """
    kept = [file for file in files if Path(file.name).name == file.name and not file.name.startswith(".")]
    if any(file.name.endswith(".safetensors") for file in kept):
        kept = [file for file in kept if not file.name.endswith(OTHER_FORMATS)]
    if not any(file.name == "config.json" for file in kept):
        raise Refused(f"{origin} is no checkpoint: it has no config.json")
    return tuple(kept)


class Folder:
    """A folder that has the checkpoint. Its digests are its manifest's, or else taken before the copy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def listing(self) -> Listing:
        if not self._path.is_dir():
            raise Refused(f"{self._path} is no folder")
        manifest: dict[str, Any] = read_manifest(self._path) or {}
        recorded = manifest.get("files", {})
        files = [
            File(
                path.name, path.stat().st_size, recorded[path.name]["sha256"] if path.name in recorded else ""
            )
            for path in files_of(self._path)
        ]
        kept = wanted(files, str(self._path))
        digested = (f if f.sha256 else File(f.name, f.size, digest(self._path / f.name)) for f in kept)
        origin = manifest.get("source", f"folder {self._path.name}")
        revision = manifest.get("revision", self._snapshot())
        return Listing(origin, revision, tuple(digested), manifest.get("only", ""))

    def read(self, file: File, offset: int) -> Iterator[bytes]:
        with (self._path / file.name).open("rb") as source:
            source.seek(offset)
            while chunk := source.read(CHUNK):
                yield chunk
            if source.tell() < file.size:
                raise Dropped(f"{self._path / file.name} became shorter")

    def _snapshot(self) -> str:
        """The commit, if the folder is a snapshot in the hub's own cache."""
        return self._path.name if COMMIT.fullmatch(self._path.name) else ""


class Hub:
    """One repository at one revision. `endpoint` None is HF_ENDPOINT or the hub itself."""

    def __init__(self, repository: str, revision: str | None, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=endpoint, library_name="headrace")
        self._repository, self._asked = repository, revision
        self._commit = ""

    def listing(self) -> Listing:
        from huggingface_hub.hf_api import RepoFile

        with self._told():
            self._commit = self._resolve()
            entries = list(self._api.list_repo_tree(self._repository, revision=self._commit))
        files = (_file(entry) for entry in entries if isinstance(entry, RepoFile))
        origin = f"{self._repository}@{self._commit}"
        return Listing(origin, self._commit, wanted(files, origin))

    def read(self, file: File, offset: int) -> Iterator[bytes]:
        import httpx2

        with self._told():
            try:
                yield from self._stream(file, offset)
            except httpx2.TransportError as error:
                raise Dropped(str(error) or type(error).__name__) from error

    def _stream(self, file: File, offset: int) -> Iterator[bytes]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self._repository, file.name, revision=self._commit, endpoint=self._api.endpoint)
        headers = build_hf_headers(token=self._api.token) | {"Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={offset}-"} if offset else {}
        with get_session().stream("GET", url, headers=headers, timeout=PATIENCE) as response:
            if response.status_code in BUSY:
                raise Dropped(f"{self._api.endpoint} answers {response.status_code}")
            hf_raise_for_status(response)
            # A server that knows no ranges sends all of it again.
            skip = offset if response.status_code == 200 else 0
            # As it arrives: what a larger chunk still waits for would be lost with the connection.
            for chunk in response.iter_bytes():
                yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def _resolve(self) -> str:
        # Asked for a pin too: unlike the listing this fails at once where there is no network.
        commit: str | None = self._api.model_info(self._repository, revision=self._asked).sha
        if not commit or not COMMIT.fullmatch(commit):
            raise Refused(
                f"{self._api.endpoint} names no commit of {self._repository}", "Give one with --revision."
            )
        return commit

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The hub's refusals as ours."""
        import httpx2
        from huggingface_hub import errors

        name, place = self._repository, self._api.endpoint
        try:
            yield
        except errors.GatedRepoError as error:
            do = f"Accept its terms at {place}/{name} and set HF_TOKEN to a token of that account."
            raise Refused(f"{name} is gated", do) from error
        except errors.RevisionNotFoundError as error:
            raise Refused(f"{name} has no revision {self._asked}", "Give another with --revision.") from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            do = "Check the name; if it is private, set HF_TOKEN."
            raise Refused(f"{place} has no model {name} for us", do) from error
        except errors.OfflineModeIsEnabled as error:
            raise Unreachable(
                "HF_HUB_OFFLINE is set", "Unset it, or stage from a folder with --from."
            ) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else "an error"
            if status in (401, 403):
                raise Refused(
                    f"{place} answers {status} for {name}", "Set HF_TOKEN to a token that may."
                ) from error
            raise Unreachable(f"{place} answers {status} for {name}", "Try again later.") from error
        except httpx2.TransportError as error:
            do = "Check the network and HF_ENDPOINT, or stage from a mirror or folder with --from."
            raise Unreachable(
                f"{place} does not answer ({str(error) or type(error).__name__})", do
            ) from error


def _file(entry: Any) -> File:
    if entry.lfs is not None:
        return File(entry.path, entry.lfs.size, sha256=entry.lfs.sha256)
    return File(entry.path, entry.size, git_sha1=entry.blob_id)


def source_of(repository: str, revision: str | None, place: str | None) -> Folder | Hub:
    """`place` is an address, a folder, or None for the hub."""
    if place is None or re.match(r"https?://", place):
        return Hub(repository, revision, place.rstrip("/") if place else None)
    if revision is not None:
        raise FetchError("a folder has no revisions", "Leave --revision out.")
    return Folder(Path(place).expanduser().absolute())
