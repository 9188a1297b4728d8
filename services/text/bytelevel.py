"""Byte-level vocabularies (GPT-2 and its heirs): a token is a sequence of bytes, whatever stands around it."""

from tokenizers import Tokenizer


def byte_table(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of every id; none for special tokens."""
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return {
        id: b"" if id in special else _bytes(token)
        for token, id in tokenizer.get_vocab(with_added_tokens=True).items()
    }


def _bytes(token: str) -> bytes:
    try:
        return bytes([BYTE_OF[character] for character in token])
    except KeyError:
        return token.encode()  # an added token is written as it is


def _byte_alphabet() -> dict[str, int]:
    """A byte that prints in Latin-1 is written as itself, the n-th other one as U+0100+n."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


BYTE_OF = _byte_alphabet()
