"""A folder that an engine is about to load: whole, or refused with the name of the file."""

from pathlib import Path

import pytest

from cluster.engine.port import EngineDead
from cluster.models.checkpoint import INDEX, verify_checkpoint
from cluster.models.staging import MANIFEST, CheckpointError, staged
from cluster.serving.replica import start_engine
from cluster.serving.settings import ReplicaSettings
from tests.support.shards import checkpoint, shard

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a download by other means leaves it: without a manifest."""
    for name, content in checkpoint().items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_whole_folder_passes_with_and_without_a_manifest(folder: Path, tmp_path: Path) -> None:
    verify_checkpoint(folder)
    with staged(tmp_path / "staged", "test") as stage:
        for name, content in checkpoint().items():
            (stage / name).write_bytes(content)
    verify_checkpoint(tmp_path / "staged")


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 3000, -1], ids=lambda kept: f"{kept}-bytes")
def test_a_partial_shard_is_named(folder: Path, kept: int) -> None:
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=f"{SECOND} is partial"):
        verify_checkpoint(folder)


def test_a_shard_that_is_too_long_is_named(folder: Path) -> None:
    with (folder / FIRST).open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=FIRST):
        verify_checkpoint(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / FIRST).unlink()
    with pytest.raises(CheckpointError, match=f"{FIRST} missing: {INDEX} lists 2 shards"):
        verify_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (INDEX, b"{", "damaged"),
        (INDEX, b'{"weight_map": {"a": "../x.safetensors"}}', "no file name"),
        (INDEX, b'{"weight_map": {"a": 3}}', "no file name"),
        (INDEX, b"[]", "damaged"),
        (FIRST, (2).to_bytes(8, "little") + b"{x", "damaged header"),
        (FIRST, (4).to_bytes(8, "little") + b"null", "damaged header"),
        (FIRST, (14).to_bytes(8, "little") + b'{"t": {"a":1}}', "damaged header"),
        (FIRST, b"\xff" * 64, "no safetensors file"),
        (MANIFEST, b"{}", "damaged"),
        (MANIFEST, b'{"source": "x", "files": {"a": {}}}', "damaged"),
    ],
)
def test_damage_is_told_with_the_file(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as told:
        verify_checkpoint(folder)
    assert name in str(told.value)


def test_a_checkpoint_in_one_file_needs_no_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(shard(10, 20))
    verify_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(shard(10, 20)[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is partial"):
        verify_checkpoint(tmp_path)


def settings(folder: Path) -> ReplicaSettings:
    vllm = {"checkpoint": str(folder)}
    return ReplicaSettings.model_validate(
        {"model": "m", "vllm": vllm, "link_token": "t", "redis_url": "redis://x"}
    )


async def test_an_engine_refuses_a_partial_shard_before_it_starts(folder: Path) -> None:
    (folder / SECOND).write_bytes(b"partial")
    with pytest.raises(EngineDead, match=SECOND) as told:
        await start_engine(settings(folder))
    assert len(str(told.value).splitlines()) == 1


async def test_an_engine_refuses_a_shard_whose_content_changed(tmp_path: Path) -> None:
    with staged(tmp_path / "m", "test") as stage:
        for name, content in checkpoint().items():
            (stage / name).write_bytes(content)
    content = bytearray((tmp_path / "m" / SECOND).read_bytes())
    content[-1] ^= 1
    (tmp_path / "m" / SECOND).write_bytes(content)
    with pytest.raises(EngineDead, match=f"{SECOND} differs from its recorded sha256"):
        await start_engine(settings(tmp_path / "m"))


async def test_an_engine_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineDead, match="does not exist"):
        await start_engine(settings(tmp_path / "none"))
