"""Whole characters only, and the same text whatever way the ids come."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from services.text.checkpoint import Checkpoint
from services.text.detokenize import Detokenizer, WindowDecoder
from tests.unit.text.conftest import SMOLLM2

SMOL = Checkpoint.load(SMOLLM2)
IDS = st.integers(0, SMOL.vocab_size + 100)
# Ids of single bytes, where most random sequences are not UTF-8.
BYTE_IDS = st.sampled_from([id for id, text in SMOL.token_bytes.items() if len(text) == 1 and text[0] > 127])


def fallback_tokenizer() -> Tokenizer:
    """Llama 2's kind: words begin with U+2581, bytes that have no token are <0x00>..<0xFF>."""
    words = ["<unk>", "▁", "a", "b", "▁a", "ab", "é"] + [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: id for id, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


FALLBACK = fallback_tokenizer()


def pieces_of(ids: list[int], cuts: list[int]) -> list[list[int]]:
    edges = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    return [ids[start:end] for start, end in pairwise(edges)]


def decoded(ids: list[int], cuts: list[int], decoder: object) -> str:
    pushed = [decoder.push(piece) for piece in pieces_of(ids, cuts)]  # type: ignore[attr-defined]
    return "".join(pushed) + decoder.flush()  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.lists(st.integers(0, 999), max_size=8))
def test_any_text_comes_back_in_any_split(text: str, cuts: list[int]) -> None:
    ids = SMOL.tokenizer.encode(text, add_special_tokens=False).ids
    assert decoded(ids, cuts, Detokenizer(SMOL)) == SMOL.tokenizer.decode(ids)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(IDS, BYTE_IDS), max_size=30), st.lists(st.integers(0, 999), max_size=8))
def test_any_ids_give_what_the_tokenizer_gives_but_an_unfinished_end(ids: list[int], cuts: list[int]) -> None:
    text = decoded(ids, cuts, Detokenizer(SMOL))
    text.encode()  # no lone surrogate
    whole = SMOL.tokenizer.decode(ids)
    # Bytes at the end that no character was made of: one U+FFFD, or two for half a surrogate.
    assert whole.removeprefix(text) in ("", "\ufffd", "\ufffd\ufffd")
    assert whole.startswith(text)


def test_an_emoji_of_several_tokens_comes_when_it_is_complete() -> None:
    ids = SMOL.tokenizer.encode("🦜", add_special_tokens=False).ids
    assert len(ids) > 1
    detokenizer = Detokenizer(SMOL)
    assert [detokenizer.push([id]) for id in ids] == [""] * (len(ids) - 1) + ["🦜"]


def test_half_a_character_at_the_end_is_dropped() -> None:
    ids = SMOL.tokenizer.encode("ok 🦜", add_special_tokens=False).ids
    detokenizer = Detokenizer(SMOL)
    assert (detokenizer.push(ids[:-1]), detokenizer.flush()) == ("ok ", "")


def test_a_replacement_character_that_the_model_means_is_delivered_at_once() -> None:
    ids = SMOL.tokenizer.encode("a\ufffd", add_special_tokens=False).ids
    assert Detokenizer(SMOL).push(ids) == "a\ufffd"


def test_special_tokens_have_no_text() -> None:
    ids = SMOL.tokenizer.encode("<|im_start|>hi<|im_end|>", add_special_tokens=False).ids
    assert Detokenizer(SMOL).push(ids) == "hi"


def test_every_id_has_the_text_that_the_tokenizer_gives_it() -> None:
    assert [
        id
        for id, data in SMOL.token_bytes.items()
        if data.decode(errors="replace") != SMOL.tokenizer.decode([id])
    ] == []


@settings(max_examples=150, deadline=None)
@given(st.text("ab é🦜", max_size=20), st.lists(st.integers(0, 99), max_size=8))
def test_a_vocabulary_with_neighbours_gives_any_text_back(text: str, cuts: list[int]) -> None:
    ids = FALLBACK.encode(text.replace(" ", "▁"), add_special_tokens=False).ids
    assert decoded(ids, cuts, WindowDecoder(FALLBACK)) == FALLBACK.decode(ids)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=30), st.lists(st.integers(0, 99), max_size=8))
def test_a_vocabulary_with_neighbours_takes_any_ids(ids: list[int], cuts: list[int]) -> None:
    decoded(ids, cuts, WindowDecoder(FALLBACK)).encode()
