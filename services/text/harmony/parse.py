"""Sampled ids of gpt-oss become reasoning, content and calls, one at a time.

A message is a header (role, recipient, channel), MESSAGE, content, and END or a stop id. Models break this
in ways that are known; the rule for all of them is that text without a readable header that makes it visible
stays hidden.
"""

import codecs
import json
from collections.abc import Collection, Sequence
from enum import Enum, auto

from services.text.family import JOINT, Kind, Piece, Rest
from services.text.harmony.header import Header, Part, read_header
from services.text.harmony.vocabulary import (
    CHANNEL,
    CONSTRAIN,
    END,
    FIRST_CONTROL,
    MESSAGE,
    START,
    STOP_IDS,
    token_table,
)

# The rules that were broken, as a metric's label. The first ones can be read all the same.
MENDED = ("stray_text", "stray_control", "broken_header", "odd_header", "no_start", "no_end")
FATAL = (
    "no_message",
    "endless_header",
    "no_channel",
    "unknown_channel",
    "foreign_role",
    "unknown_tool",
    "bad_arguments",
    "no_answer",
    "empty",
)

ENDS = {END, *STOP_IDS}
LONGEST_HEADER = 64  # tokens; the longest legitimate one is a function's name of 64 bytes and a few words
LONGEST_STRAY = 64  # tokens between two messages, after which none is expected any more


class State(Enum):
    HEADER = auto()
    CONTENT = auto()
    BETWEEN = auto()


class HarmonyParser:
    """Begins where the prompt ends: after `<|start|>assistant`.

    `functions` are the names that may be called.
    """

    __slots__ = (
        "_answered",
        "_arguments",
        "_bad_call",
        "_called",
        "_decode",
        "_final",
        "_flaw",
        "_functions",
        "_length",
        "_parts",
        "_run",
        "_said",
        "_state",
        "_table",
        "kind",
        "mended",
        "over",
        "reasoning_tokens",
    )

    def __init__(self, functions: Collection[str] = ()) -> None:
        self._functions = functions
        self._table = token_table()
        self._state = State.HEADER
        self._parts = [Part(START, bytearray(b"assistant"))]
        self._length = 0  # tokens of the header
        self.kind: Kind | None = None  # of the message being read; None: hidden
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._run: list[bytes] = []  # of the message, not decoded yet
        self._arguments: list[str] | None = None  # of the call being read
        self._flaw = ""  # of the message read last
        self._bad_call = self._called = False
        self._said = False  # some content, be it a preamble
        self._final = False  # the message being read is the answer
        self._answered = False  # wholly, and no call followed
        self.mended: list[str] = []
        self.over = False
        self.reasoning_tokens = 0

    def push(self, ids: Sequence[int]) -> list[Piece]:
        pieces: list[Piece] = []
        for id in ids:
            if self._state is State.CONTENT and id < FIRST_CONTROL:
                if self.kind is not None:
                    self._run.append(self._table[id])
                    self.reasoning_tokens += self.kind is Kind.REASONING
                continue
            if self.over:  # whatever comes, in this push or a later one
                break
            if id >= FIRST_CONTROL:
                self._control(id, pieces)
            elif self._state is State.HEADER:
                self._head(id)
            else:
                self._stray()
        if self._run:
            self._flush(pieces)
        return pieces

    def finish(self, *, cut: bool) -> Rest:
        rest = Rest()
        if self._state is State.CONTENT:
            if cut:
                self._arguments = None  # what is missing of them is no flaw
            self._close(rest.pieces)
        elif self._state is State.HEADER and self._length:
            self._flaw = "no_message"
        if not cut:
            rest.flaw = self._verdict()
        return rest

    def _verdict(self) -> str:
        if self._bad_call:
            return "bad_arguments"
        if self._answered and self._flaw:  # what follows a whole answer takes nothing from it
            self._note(self._flaw)
            return ""
        if self._flaw or self._said or self._called:
            return self._flaw
        return "no_answer" if self.reasoning_tokens else "empty"

    def _control(self, id: int, pieces: list[Piece]) -> None:
        if self._state is State.CONTENT:
            self._control_in_content(id, pieces)
        elif id == START:
            if self._state is State.HEADER and self._length:
                self._note("broken_header")
            self._begin(Part(START, bytearray()))
        elif id == CHANNEL and self._state is State.BETWEEN:
            self._note("no_start")
            self._begin(Part(START, bytearray(b"assistant")), Part(CHANNEL, bytearray()))
        elif self._state is State.BETWEEN:
            return
        elif id == MESSAGE:
            self._open(read_header(self._parts, self._functions), pieces)
        elif id in (CHANNEL, CONSTRAIN):
            self._length += 1
            self._parts.append(Part(id, bytearray()))
        else:
            self._flaw, self._state = "no_message", State.BETWEEN

    def _control_in_content(self, id: int, pieces: list[Piece]) -> None:
        if id in ENDS:
            self._close(pieces)
        elif id in (START, CHANNEL):
            self._note("no_end")
            self._close(pieces)
            self._control(id, pieces)
        else:
            self._note("stray_control")

    def _begin(self, *parts: Part) -> None:
        self._state, self._parts, self._length = State.HEADER, list(parts), 0

    def _head(self, id: int) -> None:
        self._length += 1
        self._parts[-1].text.extend(self._table[id])
        if self._length > LONGEST_HEADER:
            self._flaw, self._state, self.over = "endless_header", State.BETWEEN, True

    def _stray(self) -> None:
        self._note("stray_text")
        self._length += 1
        self.over = self.over or self._length > LONGEST_STRAY

    def _open(self, header: Header, pieces: list[Piece]) -> None:
        self._state, self.kind, self._flaw = State.CONTENT, header.kind, header.flaw
        self._final = header.final
        self.mended += header.mended
        self.over = self.over or header.flaw == "foreign_role"
        if header.kind is Kind.CALL:
            pieces.append(Piece(Kind.CALL, header.function))
            self.kind, self._arguments, self._called = Kind.ARGUMENTS, [], True
            self._answered = False
        elif header.kind is Kind.CONTENT and self._said:
            pieces.append(Piece(Kind.CONTENT, JOINT))

    def _close(self, pieces: list[Piece]) -> None:
        """The message is over; the beginning of a character that nothing completes is dropped."""
        self._flush(pieces)
        self._decode(b"", True)
        if self._arguments is not None:
            self._bad_call = self._bad_call or not _is_object("".join(self._arguments))
        self._answered = self._answered or (self._final and self._said)
        self._final = False
        self._state, self.kind, self._arguments, self._length = State.BETWEEN, None, None, 0

    def _flush(self, pieces: list[Piece]) -> None:
        text = self._decode(b"".join(self._run))
        self._run.clear()
        if not text or self.kind is None:
            return
        if self._arguments is not None:
            self._arguments.append(text)
        self._said = self._said or self.kind is Kind.CONTENT
        pieces.append(Piece(self.kind, text))

    def _note(self, flaw: str) -> None:
        if not self.mended or self.mended[-1] != flaw:
            self.mended.append(flaw)


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
