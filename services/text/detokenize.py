"""Sampled ids become text, whole characters only, one object per turn."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenizers import Tokenizer

from services.text.checkpoint import Checkpoint

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4  # bytes of UTF-8, and so tokens at most


class Decoder(Protocol):
    def push(self, ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


class Detokenizer:
    """Special tokens are skipped. Pushes in any split give the same text as decoding all ids at once."""

    __slots__ = ("flush", "push")

    def __init__(self, checkpoint: Checkpoint) -> None:
        decoder: Decoder
        if checkpoint.token_bytes is not None:
            decoder = ByteDecoder(checkpoint.token_bytes)
        else:
            decoder = WindowDecoder(checkpoint.tokenizer)
        self.push = decoder.push
        self.flush = decoder.flush


class ByteDecoder:
    """Byte-level vocabularies: a token is bytes, whatever stands around it."""

    __slots__ = ("_decode", "_table")

    def __init__(self, table: Mapping[int, bytes]) -> None:
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, ids: Sequence[int]) -> str:
        table = self._table
        # An id beyond the tokenizer is padding of the model's vocabulary and has no text.
        return self._decode(b"".join([table.get(id, b"") for id in ids]))

    def flush(self) -> str:
        """An unfinished character is dropped, so nothing is left to give."""
        return ""


class WindowDecoder:
    """Other vocabularies: text depends on neighbours, so the ids since the last delivery are decoded
    again with those of the delivery before."""

    __slots__ = ("_ids", "_read", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._read = 0  # of _ids, how many are delivered; they are kept as context

    def push(self, ids: Sequence[int]) -> str:
        self._ids += ids
        text = self._undelivered()
        waiting = len(self._ids) - self._read
        if text.endswith(REPLACEMENT) and waiting < LONGEST_CHARACTER:
            return ""
        if text:
            del self._ids[: self._read]
            self._read = len(self._ids)
        return text

    def flush(self) -> str:
        text = self._undelivered().rstrip(REPLACEMENT)
        self._ids, self._read = [], 0
        return text

    def _undelivered(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._read], skip_special_tokens=True)
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return text[len(before) :]
