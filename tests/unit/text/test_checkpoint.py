"""What a checkpoint folder says, and what is said about a broken one."""

import json
import shutil
from pathlib import Path

import pytest

from services.core.request import Sampling
from services.text.checkpoint import Checkpoint, CheckpointError
from tests.unit.text.conftest import SMOLLM2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(SMOLLM2, tmp_path / "checkpoint")


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    kept = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in kept.items() if v is not None}))


def test_smollm2_is_read(smollm2: Checkpoint) -> None:
    assert (smollm2.vocab_size, smollm2.context_length, smollm2.stop_ids) == (49152, 8192, (2,))
    assert smollm2.sampling == Sampling()
    assert smollm2.special_text["eos_token"] == "<|im_end|>"
    assert smollm2.control == frozenset(range(17))


def test_several_ends_are_all_stop_ids(folder: Path) -> None:
    edit(folder, "generation_config.json", eos_token_id=[2, 0])
    assert Checkpoint.load(folder).stop_ids == (2, 0)


def test_without_a_generation_config_the_config_names_the_end(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert Checkpoint.load(folder).stop_ids == (2,)
    edit(folder, "config.json", eos_token_id=None)
    assert Checkpoint.load(folder).stop_ids == (2,)  # from the tokenizer's eos_token
    edit(folder, "tokenizer_config.json", eos_token=None)
    assert Checkpoint.load(folder).stop_ids == ()


def test_recommended_sampling_is_read(folder: Path) -> None:
    edit(folder, "generation_config.json", temperature=0.6, top_p=0.95, top_k=20)
    assert Checkpoint.load(folder).sampling == Sampling(temperature=0.6, top_p=0.95, top_k=20)


def test_the_template_may_lie_in_the_tokenizer_config(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    edit(folder, "tokenizer_config.json", chat_template="{{ 1 }}")
    assert Checkpoint.load(folder).chat_template == "{{ 1 }}"
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    edit(folder, "tokenizer_config.json", chat_template=named)
    assert Checkpoint.load(folder).chat_template == "d"


def test_a_nested_language_model_gives_its_context(folder: Path) -> None:
    edit(folder, "config.json", text_config={"max_position_embeddings": 77})
    assert Checkpoint.load(folder).context_length == 77


def test_truncation_in_the_file_never_shortens_a_prompt(folder: Path) -> None:
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    edit(folder, "tokenizer.json", truncation=cut)
    assert len(Checkpoint.load(folder).tokenizer.encode("one two three four five six").ids) > 4


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja"]
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name) as error:
        Checkpoint.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {}}', '"\ud83e"'])
def test_a_broken_tokenizer_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json") as error:
        Checkpoint.load(folder)
    assert "\n" not in str(error.value)


def test_a_missing_context_length_is_named(folder: Path) -> None:
    edit(folder, "config.json", max_position_embeddings=None)
    with pytest.raises(CheckpointError, match="max_position_embeddings"):
        Checkpoint.load(folder)


def test_sampling_that_is_no_number_is_named(folder: Path) -> None:
    edit(folder, "generation_config.json", temperature="hot")
    with pytest.raises(CheckpointError, match="temperature"):
        Checkpoint.load(folder)
