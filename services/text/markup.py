"""Which tokens of a checkpoint divide its answers: thoughts and calls. Looked up by text at load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from services.text.calls import Syntax, syntax_of
from services.text.checkpoint import Checkpoint

THINK, THINK_END = "<think>", "</think>"
ASSISTANT = "<｜Assistant｜>"  # of DeepSeek, whose reasoners think whether or not the prompt opens a thought


class Mark(Enum):
    THINK = auto()
    THINK_END = auto()
    FIRST = auto()  # of a section of calls
    LAST = auto()
    CALL = auto()
    SEPARATOR = auto()
    CALL_END = auto()


@dataclass(frozen=True, slots=True)
class Markup:
    marks: Mapping[int, Mark]
    texts: Mapping[int, str]  # of the marks
    syntax: Syntax | None  # None: no tools
    ponders: int | None  # the role marker after which the model thinks, unless the prompt closes the thought

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Markup":
        decoder = checkpoint.tokenizer.get_added_tokens_decoder()
        added = {token.content: id for id, token in decoder.items()}
        template = checkpoint.chat_template
        syntax = syntax_of(template, added)
        known = {**_thought(added), **(_calls(syntax) if syntax else {})}
        reasoner = THINK_END in template and THINK_END in known and ASSISTANT in template
        return cls(
            marks={added[text]: mark for text, mark in known.items()},
            texts={added[text]: text for text in known},
            syntax=syntax,
            ponders=added.get(ASSISTANT) if reasoner else None,
        )

    @property
    def thinks(self) -> bool:
        return Mark.THINK in self.marks.values()

    def begins_thinking(self, prompt: Sequence[int]) -> bool:
        """Whether an answer to this prompt begins within a thought. Its control tokens are enough."""
        for id in reversed(prompt) if self.thinks else ():
            if (mark := self.marks.get(id)) in (Mark.THINK, Mark.THINK_END):
                return mark is Mark.THINK
            if id == self.ponders:
                return True
        return False

    def id(self, mark: Mark) -> int:
        return next(id for id, other in self.marks.items() if other is mark)


def _thought(added: Mapping[str, int]) -> dict[str, Mark]:
    both = THINK in added and THINK_END in added
    return {THINK: Mark.THINK, THINK_END: Mark.THINK_END} if both else {}


def _calls(syntax: Syntax) -> dict[str, Mark]:
    marks = {
        syntax.begin: Mark.CALL,
        syntax.end: Mark.CALL_END,
        syntax.first: Mark.FIRST,
        syntax.last: Mark.LAST,
        syntax.separator: Mark.SEPARATOR,
    }
    return {text: mark for text, mark in marks.items() if text}
