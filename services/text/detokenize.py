"""Sampled ids become text, whole characters only, one object per turn."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenizers import Tokenizer

from services.text.checkpoint import Checkpoint

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4  # in bytes of UTF-8, and so in tokens


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
        last = len(self._ids)
        # An unfinished character is at most three tokens; a longer run of U+FFFD is what was said.
        for end in range(last, max(self._read, last - LONGEST_CHARACTER), -1):
            text = self._text(end)
            if not text.endswith(REPLACEMENT):
                return self._deliver(text, end)
        return self._deliver(self._text(last), last) if last - self._read >= LONGEST_CHARACTER else ""

    def flush(self) -> str:
        text = self._text(len(self._ids)).rstrip(REPLACEMENT)
        self._ids, self._read = [], 0
        return text

    def _text(self, end: int) -> str:
        """What the ids up to `end` add to those already delivered."""
        before = self._tokenizer.decode(self._ids[: self._read], skip_special_tokens=True)
        text: str = self._tokenizer.decode(self._ids[:end], skip_special_tokens=True)
        return text[len(before) :]

    def _deliver(self, text: str, end: int) -> str:
        if text:  # tokens without text are no context for the next ones
            del self._ids[: self._read]
            self._read = end - self._read
        return text
