"""The tokenizer made from oss-harmony's vocabulary, and the one that grammars are compiled with."""

import json
from pathlib import Path
from random import Random

import openai_harmony
import pytest
from tokenizers import Tokenizer

from cluster.engine.vocabulary import derive, grammar_tokenizer
from cluster.models.harmony import NAMED, tokenizer

ENCODING = openai_harmony.load_harmony_encoding("HarmonyGptOss")
SAMPLES = (
    "",
    "Hello, world! I'll've don'T WE'RE",
    "  leading and trailing   \n\n\t tabs\r\n",
    "def f(x):\n    return x ** 2  # größer als 1234567.89\n",
    "东京と서울 Здравствуйте שלום עולם नमस्ते",
    "👩‍👩‍👧 🇩🇪 e\u0301 \u00a0\u200b\ufeff",
    "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{}<|return|>",
    "a" * 500 + "/" * 40 + "\n" * 9,
)


@pytest.fixture(scope="module")
def made() -> dict[str, object]:
    return tokenizer()


def random_texts() -> list[str]:
    draw = Random(7)

    def letter() -> str:
        return draw.choice((chr(draw.randrange(32, 127)), chr(draw.randrange(1, 0xD7FF)), " ", "\n", "ing"))

    return ["".join(letter() for _ in range(80)) for _ in range(400)]


def test_it_encodes_and_decodes_as_harmony_does(made: dict[str, object]) -> None:
    ours = Tokenizer.from_str(json.dumps(made))
    for text in (*SAMPLES, *random_texts()):
        ids = ENCODING.encode(
            text, allowed_special={f"<|{name}|>" for name in NAMED.values()} - {"<|endofprompt|>"}
        )
        assert ours.encode(text).ids == ids
        assert ours.decode(ids, skip_special_tokens=False) == text


def test_in_grammars_no_text_is_spelled_by_a_special_token(made: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    with grammar_tokenizer(tmp_path) as folder:
        assert folder is not None
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    spelled = {id: token for token, id in vocabulary.items()}
    assert len(spelled) == 200_019
    for id in range(199_998, 200_019):
        # The byte 0xFF is in no UTF-8 text.
        assert spelled[id].startswith("ÿ<|")
    assert spelled[13225] == "Hello"
    assert not folder.exists()


def test_a_sentencepiece_vocabulary_hides_them_behind_a_control_character() -> None:
    token = {"id": 1, "content": "</s>", "special": True}
    word = {"id": 2, "content": "<think>", "special": False}
    model = {"type": "BPE", "vocab": {"<unk>": 0, "</s>": 1, "<think>": 2}, "merges": [["a", "b"]]}
    given = {
        "added_tokens": [token, word],
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
    }
    derived = derive(given | {"model": model})
    assert [added["content"] for added in derived["added_tokens"]] == ["\x00</s>", "<think>"]
    assert derived["model"] == {
        "type": "BPE",
        "vocab": {"<unk>": 0, "\x00</s>": 1, "<think>": 2},
        "merges": [],
    }


def test_a_checkpoint_without_tokenizer_has_none_for_grammars(tmp_path: Path) -> None:
    with grammar_tokenizer(tmp_path) as folder:
        assert folder is None
