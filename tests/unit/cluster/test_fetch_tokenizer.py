"""`headrace fetch --only tokenizer`: what a gateway reads, compared like the rest; an engine refuses it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.models.checkpoint import verify_checkpoint
from cluster.models.fetch import TEXT_FILES, FetchError, File, Listing, Refused, alone, fetch
from cluster.models.sources import Folder, Hub
from cluster.models.staging import MANIFEST, TOKENIZER, CheckpointError, digest
from services.cli import exits
from services.text.checkpoint import Checkpoint
from tests.support.hub import COMMIT, FakeHub, serving
from tests.support.shards import checkpoint

ROOT = Path(__file__).parents[3]
REPOSITORY = "org/small"
SHARD = "model-00001-of-00002.safetensors"
WORDS = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": []}
TEXT = {
    "tokenizer.json": WORDS,
    "tokenizer_config.json": {"eos_token": "b"},
    "config.json": {"max_position_embeddings": 64, "vocab_size": 2},
    "generation_config.json": {"eos_token_id": 1, "temperature": 0.6},
}


class Silent:
    def begin(self, listing: Listing, missing: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def finished(self, file: File) -> None: ...


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    text = {name: json.dumps(value).encode() for name, value in TEXT.items()}
    files = checkpoint() | text | {"chat_template.jinja": b"{{ messages[0].content }}", "vocab.json": b"{}"}
    with serving(FakeHub(REPOSITORY, files)) as served:
        yield served


def stage(hub: FakeHub, target: Path, only: str = TOKENIZER) -> Listing:
    return fetch(Hub(REPOSITORY, COMMIT, hub.url), target, Silent(), lambda _: None, only=only)


def command(home: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "HF_"))}
    places = {"HEADRACE_HOME": str(home), "HEADRACE_CACHE": str(home / "cache"), "HF_HOME": str(home / "hf")}
    argv = [sys.executable, "-m", "services.cli", "fetch", *words]
    return subprocess.run(
        argv, env=kept | places | env, cwd=ROOT, text=True, capture_output=True, check=False
    )


def test_the_text_side_arrives_without_a_byte_of_weights(hub: FakeHub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "m")
    names = {path.name for path in (tmp_path / "m").iterdir()} - {MANIFEST}
    assert names == set(TEXT_FILES)
    assert hub.asked(SHARD) == []
    loaded = Checkpoint.load(tmp_path / "m")
    assert (loaded.context_length, loaded.stop_ids, loaded.sampling.temperature) == (64, (1,), 0.6)


def test_its_manifest_says_what_it_is_and_an_engine_refuses_it(hub: FakeHub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / MANIFEST).read_text())
    assert (manifest["only"], manifest["source"]) == (TOKENIZER, f"{REPOSITORY}@{COMMIT}")
    with pytest.raises(CheckpointError, match="is partial: it has the files of the tokenizer and no weights"):
        verify_checkpoint(tmp_path / "m")


def test_a_small_file_that_differs_from_the_index_is_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.lies = {"chat_template.jinja": bytes(len(hub.files["chat_template.jinja"]))}
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja"):
        stage(hub, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_whole_checkpoint_has_the_text_side_too(hub: FakeHub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "m", only="")
    stage(hub, tmp_path / "m")
    verify_checkpoint(tmp_path / "m")


def test_a_text_side_is_not_taken_for_the_whole(hub: FakeHub, tmp_path: Path) -> None:
    stage(hub, tmp_path / "m")
    with pytest.raises(FetchError, match="the tokenizer's files only") as told:
        stage(hub, tmp_path / "m", only="")
    assert told.value.do == "Remove it, or choose another with --to."
    with pytest.raises(Refused, match="no weights"):
        fetch(Folder(tmp_path / "m"), tmp_path / "n", Silent(), lambda _: None)
    fetch(Folder(tmp_path / "m"), tmp_path / "n", Silent(), lambda _: None, only=TOKENIZER)
    assert digest(tmp_path / "n" / "tokenizer.json") == digest(tmp_path / "m" / "tokenizer.json")


def test_a_repository_without_a_tokenizer_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    del hub.files["tokenizer.json"]
    with pytest.raises(Refused, match=r"has no tokenizer\.json"):
        stage(hub, tmp_path / "m")


def test_who_waits_finds_what_the_other_fetched(hub: FakeHub, tmp_path: Path) -> None:
    lock = tmp_path / f".m.{COMMIT[:12]}-{TOKENIZER}.partial"
    source = Hub(REPOSITORY, COMMIT, hub.url)
    second = threading.Thread(
        target=fetch,
        args=(source, tmp_path / "m", Silent(), lambda _: None),
        kwargs={"only": TOKENIZER, "wait": True},
    )
    with alone(lock):
        second.start()
        stage_without_lock(hub, lock, tmp_path / "m")
    second.join()
    assert hub.asked("tokenizer.json") == [None]


def stage_without_lock(hub: FakeHub, lock: Path, target: Path) -> None:
    """As the holder of the lock goes on: elsewhere, and then in one step to the target."""
    stage(hub, target.with_name("elsewhere"))
    target.with_name("elsewhere").rename(target)
    lock.rmdir()


def test_a_pinned_commit_that_is_there_needs_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    pinned = (REPOSITORY, "--only", "tokenizer", "--revision", COMMIT)
    assert command(tmp_path, *pinned, HF_ENDPOINT=hub.url).returncode == 0
    asked = len(hub.requests)
    again = command(tmp_path, *pinned, HF_ENDPOINT="http://127.0.0.1:9")
    assert (again.returncode, again.stdout) == (0, f"{tmp_path}/cache/models/small  {REPOSITORY}@{COMMIT}\n")
    assert len(hub.requests) == asked
    (tmp_path / "cache/models/small/tokenizer.json").write_text("{}")
    changed = command(tmp_path, *pinned, HF_ENDPOINT="http://127.0.0.1:9")
    assert changed.returncode == exits.FAILED and "tokenizer.json has another size" in changed.stderr


def test_another_part_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, REPOSITORY, "--only", "weights")
    assert (done.returncode, done.stderr) == (
        exits.USAGE,
        "headrace: no part of a checkpoint is called 'weights'. Give --only tokenizer.\n",
    )
