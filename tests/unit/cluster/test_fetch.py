"""Staging a checkpoint from a hub on a loopback port, and from a folder: whole, compared, resumed, or refused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.models.checkpoint import verify_checkpoint
from cluster.models.fetch import FetchError, File, Listing, Refused, Unreachable, fetch
from cluster.models.sources import Folder, Hub, source_of
from cluster.models.staging import MANIFEST, CheckpointError
from services.cli import exits
from services.cli.main import main
from tests.support.hub import COMMIT, FakeHub, serving
from tests.support.shards import checkpoint

ROOT = Path(__file__).parents[3]
REPOSITORY = "org/small"
SHARD = "model-00001-of-00002.safetensors"


@dataclass
class Heard:
    missing: int = 0
    bytes: int = 0
    pauses: list[float] = field(default_factory=list)

    def begin(self, listing: Listing, missing: int) -> None:
        self.missing = missing

    def advance(self, count: int) -> None:
        self.bytes += count

    def finished(self, file: File) -> None: ...


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub(REPOSITORY, checkpoint())) as served:
        yield served


@pytest.fixture
def heard() -> Heard:
    return Heard()


def stage(hub: FakeHub, target: Path, heard: Heard, revision: str | None = COMMIT) -> Listing:
    return fetch(Hub(REPOSITORY, revision, hub.url), target, heard, heard.pauses.append)


def read_back(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def test_a_checkpoint_arrives_whole_and_with_a_manifest(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    stage(hub, tmp_path / "m", heard)
    assert read_back(tmp_path / "m") == hub.files
    manifest = json.loads((tmp_path / "m" / MANIFEST).read_text())
    assert (manifest["source"], manifest["revision"]) == (f"{REPOSITORY}@{COMMIT}", COMMIT)
    assert heard.bytes == heard.missing == sum(map(len, hub.files.values()))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    verify_checkpoint(tmp_path / "m")


def test_a_branch_is_resolved_and_its_commit_recorded(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    assert stage(hub, tmp_path / "m", heard, revision=None).revision == COMMIT
    assert json.loads((tmp_path / "m" / MANIFEST).read_text())["revision"] == COMMIT


def test_only_what_an_engine_reads_is_fetched(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    wanted = dict(hub.files)
    hub.files |= {"pytorch_model.bin": b"x" * 5000, ".gitattributes": b"x", "../out.json": b"x"}
    hub.files |= {"original/model.safetensors": b"x", "metal/model.bin": b"x"}
    stage(hub, tmp_path / "m", heard)
    assert read_back(tmp_path / "m") == wanted


def test_a_dropped_connection_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    hub.drop_after = [50_000, 60_000]
    stage(hub, tmp_path / "m", heard)
    assert read_back(tmp_path / "m") == hub.files
    assert hub.asked(SHARD) == [None, "bytes=50000-", "bytes=110000-"]
    assert len(heard.pauses) == 2


def test_a_server_without_ranges_still_ends_in_a_whole_file(
    hub: FakeHub, tmp_path: Path, heard: Heard
) -> None:
    hub.drop_after, hub.knows_ranges = [50_000], False
    stage(hub, tmp_path / "m", heard)
    assert read_back(tmp_path / "m") == hub.files


def test_a_source_that_sends_nothing_is_given_up(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    hub.file_status = 503
    with pytest.raises(Unreachable, match="503"):
        stage(hub, tmp_path / "m", heard)
    assert len(heard.pauses) == 5
    assert not (tmp_path / "m").exists()


def test_a_fetch_that_was_killed_goes_on_with_a_range(hub: FakeHub, tmp_path: Path) -> None:
    """The process dies between two chunks of the first shard; a second process asks for the rest only."""
    program = f"""
import os, signal, sys
from pathlib import Path
from cluster.models.fetch import fetch
from cluster.models.sources import Hub
class Killer:
    seen = 0
    def begin(self, listing, missing): ...
    def finished(self, file): ...
    def advance(self, count):
        self.seen += count
        if self.seen > 60_000: os.kill(os.getpid(), signal.SIGKILL)
fetch(Hub({REPOSITORY!r}, {COMMIT!r}, {hub.url!r}), Path({str(tmp_path / "m")!r}), Killer(), print)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "m").exists()
    hub.requests.clear()
    heard = Heard()
    stage(hub, tmp_path / "m", heard)
    ranges = hub.asked(SHARD)
    assert len(ranges) == 1 and ranges[0] is not None and int(ranges[0][6:-1]) > 0
    assert hub.asked("config.json") == []
    assert 0 < heard.bytes == heard.missing < sum(map(len, hub.files.values()))
    assert read_back(tmp_path / "m") == hub.files


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_a_file_that_differs_from_the_index_is_named_and_fetched_anew(
    name: str, hub: FakeHub, tmp_path: Path, heard: Heard
) -> None:
    hub.lies = {name: bytes(len(hub.files[name]))}
    with pytest.raises(CheckpointError, match=name):
        stage(hub, tmp_path / "m", heard)
    assert not (tmp_path / "m").exists()
    hub.lies = {}
    stage(hub, tmp_path / "m", heard)
    assert read_back(tmp_path / "m") == hub.files


def test_a_repository_without_a_listed_shard_is_refused_before_its_weights(
    hub: FakeHub, tmp_path: Path, heard: Heard
) -> None:
    del hub.files[SHARD]
    with pytest.raises(CheckpointError, match=SHARD):
        stage(hub, tmp_path / "m", heard)
    assert not any(path.endswith(".safetensors") for path, _ in hub.requests)


def test_a_present_checkpoint_costs_no_download_and_a_changed_one_is_named(
    hub: FakeHub, tmp_path: Path, heard: Heard
) -> None:
    stage(hub, tmp_path / "m", heard)
    hub.requests.clear()
    stage(hub, tmp_path / "m", heard)
    assert hub.asked(SHARD) == []
    (tmp_path / "m" / SHARD).write_bytes(b"short")
    with pytest.raises(FetchError, match=SHARD) as told:
        stage(hub, tmp_path / "m", heard)
    assert told.value.do == f"Remove {tmp_path / 'm'} and run the same command again."


def test_a_folder_with_something_else_is_left_alone(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "letter").write_text("dear")
    with pytest.raises(FetchError, match="no fetch wrote"):
        stage(hub, tmp_path / "m", heard)
    assert (tmp_path / "m" / "letter").read_text() == "dear"


def test_a_disk_that_is_too_small_is_told_before_the_download(
    hub: FakeHub, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.models.fetch.shutil.disk_usage", lambda _: Disk(1000))
    with pytest.raises(FetchError, match=r"needs 0\.0 GB more, has 0\.0 GB free"):
        stage(hub, tmp_path / "m", heard)
    assert hub.asked("config.json") == []


@dataclass
class Disk:
    free: int


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (401, "", Refused, "401|no model"),
        (403, "GatedRepo", Refused, "is gated"),
        (404, "RepoNotFound", Refused, "no model"),
        (404, "RevisionNotFound", Refused, "no revision"),
        (403, "", Refused, "403"),
    ],
)
def test_a_refusal_is_told_as_what_it_is(
    status: int, code: str, error: type[FetchError], words: str, hub: FakeHub, tmp_path: Path, heard: Heard
) -> None:
    hub.status = (status, code)
    with pytest.raises(error, match=words) as told:
        stage(hub, tmp_path / "m", heard)
    assert told.value.do
    assert list(tmp_path.iterdir()) == []


def test_a_refused_file_is_told_too(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    hub.file_status = 403
    with pytest.raises(Refused, match="403"):
        stage(hub, tmp_path / "m", heard)


def test_nobody_at_the_address_is_unreachable(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        fetch(Hub(REPOSITORY, COMMIT, "http://127.0.0.1:9"), tmp_path / "m", heard, heard.pauses.append)


def test_two_fetches_into_one_folder_are_refused(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    from cluster.models.fetch import alone

    with alone(tmp_path / f".m.{COMMIT[:12]}.partial"), pytest.raises(FetchError, match="another fetch"):
        stage(hub, tmp_path / "m", heard)


def test_a_folder_is_a_source_and_keeps_its_revision(hub: FakeHub, tmp_path: Path, heard: Heard) -> None:
    stage(hub, tmp_path / "m", heard)
    fetch(Folder(tmp_path / "m"), tmp_path / "n", heard, heard.pauses.append)
    assert read_back(tmp_path / "n") == hub.files
    assert json.loads((tmp_path / "n" / MANIFEST).read_text())["revision"] == COMMIT


def test_a_folder_whose_file_differs_from_its_manifest_is_no_source(
    hub: FakeHub, tmp_path: Path, heard: Heard
) -> None:
    stage(hub, tmp_path / "m", heard)
    content = bytearray(hub.files[SHARD])
    content[-1] ^= 1
    (tmp_path / "m" / SHARD).write_bytes(content)
    with pytest.raises(CheckpointError, match=SHARD):
        fetch(Folder(tmp_path / "m"), tmp_path / "n", heard, heard.pauses.append)


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(Refused, match=r"config\.json"):
        fetch(Folder(tmp_path), tmp_path / "n", heard, heard.pauses.append)


def test_a_place_is_an_address_or_a_folder(tmp_path: Path) -> None:
    assert isinstance(source_of("a/b", None, "https://mirror.example"), Hub)
    assert isinstance(source_of("a/b", None, str(tmp_path)), Folder)
    with pytest.raises(FetchError, match="no revisions"):
        source_of("a/b", "main", str(tmp_path))


def command(home: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "HF_"))}
    places = {"HEADRACE_HOME": str(home), "HEADRACE_CACHE": str(home / "cache"), "HF_HOME": str(home / "hf")}
    argv = [sys.executable, "-m", "services.cli", "fetch", *words]
    return subprocess.run(
        argv, env=kept | places | env, cwd=ROOT, text=True, capture_output=True, check=False
    )


def test_the_command_stages_where_up_looks_and_prints_the_commit(hub: FakeHub, tmp_path: Path) -> None:
    done = command(tmp_path, REPOSITORY, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/cache/models/small  {REPOSITORY}@{COMMIT}\n"
    assert f"{SHARD}  {len(hub.files[SHARD]):,} bytes" in done.stderr


def test_the_hubs_own_offline_switch_is_named(hub: FakeHub, tmp_path: Path) -> None:
    done = command(tmp_path, REPOSITORY, "--from", hub.url, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (exits.UNREACHABLE, "")
    assert done.stderr == "headrace: HF_HUB_OFFLINE is set. Unset it, or stage from a folder with --from.\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nonsense",), exits.USAGE, "gpt-oss-20b"),
        (("org/none", "--from", "HUB"), exits.REFUSED, "no model org/none"),
        ((REPOSITORY, "--from", "http://127.0.0.1:9"), exits.UNREACHABLE, "with --from"),
        ((REPOSITORY, "--from", "/none"), exits.REFUSED, "is no folder"),
        ((REPOSITORY, "--from", "HUB", "--to", "/dev/null/x"), exits.FAILED, "/dev/null"),
        ((REPOSITORY, "--from", "HUB", "--revision", "nowhere"), exits.REFUSED, "no revision nowhere"),
    ],
)
def test_the_commands_failures_are_one_line_with_a_code_each(
    words: tuple[str, ...],
    code: int,
    said: str,
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["fetch", *(hub.url if word == "HUB" else word for word in words)])
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (code, "")
    assert said in told.err and len(told.err.splitlines()) == 1 and told.err.startswith("headrace: ")
