"""The manifest of a prepared checkpoint, on small files."""

from pathlib import Path

import pytest

from cluster.models.staging import MANIFEST, CheckpointError, reusable, staged, verify


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    with staged(folder, "test") as stage:
        (stage / "weights").write_bytes(b"1234")
    return folder


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "model", "test") as stage:
        (stage / "weights").write_bytes(b"1234")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with staged(folder, "test") as late:
        (late / "weights").write_bytes(b"1234")
        with staged(folder, "test") as early:
            (early / "weights").write_bytes(b"5678")
    assert (folder / "weights").read_bytes() == b"5678"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_another_recipe_made_is_made_anew(checkpoint: Path) -> None:
    assert reusable(checkpoint, "test")
    assert not reusable(checkpoint, "test/2")
    assert not checkpoint.exists()


def test_an_intact_folder_verifies(checkpoint: Path) -> None:
    verify(checkpoint)
    verify(checkpoint, full=True)


@pytest.mark.parametrize("content", [b"12345", b"1235"], ids=["size", "content"])
def test_a_changed_file_is_found(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "weights").write_bytes(content)
    with pytest.raises(CheckpointError, match="weights"):
        verify(checkpoint)


def test_a_missing_file_is_found(checkpoint: Path) -> None:
    (checkpoint / "weights").unlink()
    with pytest.raises(CheckpointError, match="weights"):
        verify(checkpoint)


def test_the_manifest_names_its_source(checkpoint: Path) -> None:
    assert '"source": "test"' in (checkpoint / MANIFEST).read_text()
