"""Sampled ids become reasoning, content and calls, divided by the marks of the checkpoint's vocabulary.

What stands in a thought stays hidden, calls too: only the mark that closes it ends it. A call is delivered
when it is complete.
"""

from collections.abc import Collection, Sequence
from enum import Enum, auto

from services.text.calls import Unreadable
from services.text.checkpoint import Checkpoint
from services.text.detokenize import Detokenizer
from services.text.family import JOINT, Kind, Piece, Rest
from services.text.markup import Mark, Markup


class State(Enum):
    THOUGHT = auto()
    CONTENT = auto()
    CALL = auto()
    SECTION = auto()  # of calls, between two of them


KINDS = {State.THOUGHT: Kind.REASONING, State.CONTENT: Kind.CONTENT}


class MarkedParser:
    """`functions` are the names that may be called; `thinking`: the prompt ends within a thought."""

    __slots__ = (
        "_called",
        "_checkpoint",
        "_detokenizer",
        "_flaw",
        "_functions",
        "_held",
        "_in_section",
        "_marks",
        "_markup",
        "_parts",
        "_said",
        "_state",
        "_trims",
        "kind",
        "mended",
        "over",
        "reasoning_tokens",
    )

    def __init__(
        self,
        checkpoint: Checkpoint,
        markup: Markup,
        functions: Collection[str] = (),
        *,
        thinking: bool = False,
    ) -> None:
        self._checkpoint = checkpoint
        self._markup = markup
        self._marks = frozenset(markup.marks)
        self._functions = functions
        self._detokenizer = Detokenizer(checkpoint)
        self._state = State.THOUGHT if thinking else State.CONTENT
        self.kind: Kind | None = KINDS[self._state]
        self._trims = markup.thinks  # white space at the beginning of what is said in this state
        self._held = ""  # white space that may be the end of a thought
        self._said: set[Kind] = set()
        self._parts = [""]  # of the call being read
        self._in_section = self._called = False
        self._flaw = ""
        self.mended: list[str] = []
        self.over = False
        self.reasoning_tokens = 0

    def push(self, ids: Sequence[int]) -> list[Piece]:
        pieces: list[Piece] = []
        if self._marks.isdisjoint(ids):
            self._run(ids, pieces)
            return pieces
        start = 0
        for index, id in enumerate(ids):
            if id in self._marks:
                self._run(ids[start:index], pieces)
                self._mark(id, pieces)
                start = index + 1
        self._run(ids[start:], pieces)
        return pieces

    def finish(self, *, cut: bool) -> Rest:
        rest = Rest()
        self._say(self._detokenizer.flush(), rest.pieces)
        if self._state is State.CALL:
            self._call(rest.pieces, cut=cut)
            self._note("no_end")
        if not cut:
            rest.flaw = self._verdict()
        return rest

    def _verdict(self) -> str:
        if self._flaw or self._called or Kind.CONTENT in self._said:
            return self._flaw
        return "no_answer" if self.reasoning_tokens else "empty"

    def _run(self, ids: Sequence[int], pieces: list[Piece]) -> None:
        """Ids without a mark among them."""
        if not ids:
            return
        self.kind = KINDS.get(self._state)
        if self._state is State.THOUGHT:
            self.reasoning_tokens += len(ids)
        self._say(self._detokenizer.push(ids), pieces)

    def _say(self, text: str, pieces: list[Piece]) -> None:
        kind = KINDS.get(self._state)
        if kind is None:
            self._hide(text)
            return
        if self._trims:
            text = text.lstrip()
            if text and kind in self._said:
                pieces.append(Piece(kind, JOINT))
        if kind is Kind.REASONING:
            whole = self._held + text
            text = whole.rstrip()
            self._held = whole[len(text) :]
        if text:
            self._trims = False
            self._said.add(kind)
            pieces.append(Piece(kind, text))

    def _hide(self, text: str) -> None:
        if self._state is State.CALL:
            self._parts[-1] += text
        elif text.strip():
            self._note("stray_text")

    def _mark(self, id: int, pieces: list[Piece]) -> None:
        mark = self._markup.marks[id]
        self.kind = None
        if self._state is State.CALL:
            self._mark_in_call(id, mark, pieces)
        elif self._state is State.THOUGHT:
            self._mark_in_thought(mark, pieces)
        elif mark is Mark.THINK:
            self._enter(State.THOUGHT, pieces)
        elif mark is Mark.CALL:
            self._begin(pieces)
        elif mark is Mark.FIRST:
            self._in_section = True
            self._enter(State.SECTION, pieces)
        elif mark is Mark.LAST and self._in_section:
            self._in_section = False
            self._enter(State.CONTENT, pieces)
        else:
            self._note("stray_control")

    def _mark_in_thought(self, mark: Mark, pieces: list[Piece]) -> None:
        if mark is Mark.THINK_END:
            self._enter(State.SECTION if self._in_section else State.CONTENT, pieces)
        elif mark is not Mark.THINK or self._said:  # some models open the thought that the prompt has opened
            self._note("stray_control")

    def _mark_in_call(self, id: int, mark: Mark, pieces: list[Piece]) -> None:
        if mark in (Mark.THINK, Mark.THINK_END):  # an argument that spells it
            self._say(self._detokenizer.flush() + self._markup.texts[id], pieces)
            return
        self._enter(State.CALL, pieces)
        if mark is Mark.SEPARATOR:
            self._parts.append("")
            return
        self._call(pieces)
        if mark is Mark.CALL_END:
            self._enter(State.SECTION if self._in_section else State.CONTENT, pieces)
            return
        self._note("no_end")
        self._enter(State.CONTENT, pieces)
        self._mark(id, pieces)

    def _enter(self, state: State, pieces: list[Piece]) -> None:
        """The beginning of a character that nothing completes is dropped, and so is the end of a thought."""
        self._say(self._detokenizer.flush(), pieces)
        self._detokenizer = Detokenizer(self._checkpoint)
        self._state, self._trims, self._held = state, True, ""

    def _begin(self, pieces: list[Piece]) -> None:
        self._enter(State.CALL, pieces)
        self._parts = [""]

    def _call(self, pieces: list[Piece], *, cut: bool = False) -> None:
        """The call is over. `cut`: what is missing of it is no flaw."""
        syntax = self._markup.syntax
        try:
            name, arguments = syntax.read(self._parts) if syntax else ("", "")
        except Unreadable:
            self._flaw = self._flaw or ("" if cut else "bad_arguments")
            return
        if name not in self._functions:
            self._flaw = self._flaw or "unknown_tool"
            return
        self._called = True
        pieces += [Piece(Kind.CALL, name), Piece(Kind.ARGUMENTS, arguments)]

    def _note(self, flaw: str) -> None:
        if not self.mended or self.mended[-1] != flaw:
            self.mended.append(flaw)
