"""The gpt-oss tokenizer as Hugging Face files, made from the vocabulary that oss-harmony carries.

Compared once with the tokenizer.json that comes with gpt-oss: vocabulary, merges and added tokens are
the same, in the same order. The tests compare encodings with oss-harmony's.
"""

import json
from collections.abc import Iterator
from pathlib import Path

ORDINARY = 199_998  # ids below are text; those above have a name and no bytes
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORDS = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
NAMED = {
    199_998: "startoftext",
    199_999: "endoftext",
    200_002: "return",
    200_003: "constrain",
    200_005: "channel",
    200_006: "start",
    200_007: "end",
    200_008: "message",
    200_012: "call",
    200_018: "endofprompt",
}
STOP_IDS = [200_002, 199_999, 200_012]


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json; about 10 s."""
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), ensure_ascii=False))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131_072,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def tokenizer() -> dict[str, object]:
    ranks = {token: rank for rank, token in enumerate(ordinary_tokens())}
    spelled = {token: spell(token) for token in ranks}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    words = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "added_tokens": [added_token(id) for id in range(ORDINARY, max(NAMED) + 1)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            # A word that is a token needs no merges, which some tokens have none of.
            "ignore_merges": True,
            "vocab": {spelled[token]: rank for token, rank in ranks.items()},
            "merges": [(spelled[left], spelled[right]) for left, right in merges(ranks)],
        },
    }


def ordinary_tokens() -> list[bytes]:
    """The bytes of each id below ORDINARY."""
    import openai_harmony

    encoding = openai_harmony.load_harmony_encoding("HarmonyGptOss")
    return [encoding._inner.decode_bytes([id]) for id in range(ORDINARY)]


def merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens that makes a token, lowest result first: BPE by ranks merges any of them."""
    for token in ranks:
        splits = ((token[:at], token[at:]) for at in range(1, len(token)))
        pairs = [pair for pair in splits if pair[0] in ranks and pair[1] in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def spell(token: bytes) -> str:
    return "".join(ALPHABET[byte] for byte in token)


def alphabet() -> list[str]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the rest take letters from 256 on."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def added_token(id: int) -> dict[str, object]:
    name = NAMED.get(id, f"reserved_{id}")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": f"<|{name}|>", **plain, "special": True}


ALPHABET = alphabet()
