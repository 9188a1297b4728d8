"""A reader that was ahead of what survived: what its caller has is held against what the turn says again.

As long as both agree the caller hears nothing twice, and nothing of it. Where they part the caller gets
one Rewind with the answers as they stand, and goes on from there.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.client.events import Delta, Event, ReasoningDelta, Rewind, ToolCallDelta
from services.client.messages import Message, ToolCall

Said = Delta | ReasoningDelta | ToolCallDelta
Key = tuple[int, str | int]  # the choice, and text, reasoning or the index of a call


class Strand:
    """One text that grows: the content of an answer, its reasoning, or one of its calls."""

    def __init__(self) -> None:
        self._told: list[tuple[str, int]] = []  # pieces that the caller has, with their tokens
        self._stands: str | None = None  # what the turn has said, while that is less than was told
        self._ahead = 0  # tokens that the caller has counted and the turn has not said again

    @property
    def told(self) -> str:
        return "".join(text for text, _ in self._told)

    @property
    def level(self) -> bool:
        return self._stands is None

    @property
    def standing(self) -> str:
        return self.told if self._stands is None else self._stands

    def rewound(self, text: str) -> bool:
        """The turn stands at `text`. False if the caller was told something else."""
        told = self.told
        self._stands = None if text == told else text
        self._ahead = self._beyond(len(text))
        return told.startswith(text)

    def heard(self, text: str, tokens: int) -> tuple[str, int] | None:
        """What of it is new to the caller; None if the caller was told something else."""
        if self._stands is None:
            return self._tell(text, tokens)
        told, stands = self.told, self._stands + text
        if told.startswith(stands):
            self._stands = None if stands == told else stands
            self._ahead -= tokens
            return "", 0
        if not stands.startswith(told):
            return None
        self._stands = None
        return self._tell(stands[len(told) :], tokens)

    def redrawn(self) -> None:
        """The caller has been told what stands."""
        self._told, self._stands, self._ahead = [(self.standing, 0)], None, 0

    def _tell(self, text: str, tokens: int) -> tuple[str, int]:
        self._ahead -= tokens
        new = max(0, -self._ahead)
        self._ahead += new
        body = text.rfind("\0") + 1  # the head of a call is no part of its tokens
        if body:
            self._told.append((text[:body], 0))
        self._told.append((text[body:], new))
        return text, new

    def _beyond(self, length: int) -> int:
        """Tokens of what was told beyond `length` characters; of a piece on the border its share."""
        at = beyond = 0
        for text, tokens in self._told:
            over = at + len(text) - max(at, length)
            beyond += tokens * max(0, over) // len(text) if text else tokens * (at > length)
            at += len(text)
        return beyond


class Told:
    """What the caller of a stream has been told. `whole` is false for one that began in the middle."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._choices = 1
        self._strands = defaultdict[Key, Strand](Strand)

    def rewound(self, answers: Sequence[Message], seq: int) -> Iterator[Event]:
        texts = _texts(answers)
        self._choices = max(self._choices, len(answers))
        keys = list({**self._strands, **texts})
        agree = [self._strands[key].rewound(texts.get(key, "")) for key in keys]
        if not (self._whole and all(agree)):
            yield self._redraw(seq)

    def heard(self, event: Said) -> Iterator[Event]:
        key, text = _key(event), _text(event)
        self._choices = max(self._choices, event.choice + 1)
        new = self._strands[key].heard(text, event.tokens)
        if new is None:
            yield self._redraw(event.seq)
            new = self._strands[key].heard(text, event.tokens)
        if new == (text, event.tokens):
            yield event
        elif new != ("", 0) and new is not None:
            yield _rest(event, *new)

    def ended(self, seq: int) -> Iterator[Event]:
        """A turn that ends short of what was told has said something else."""
        if not all(strand.level for strand in self._strands.values()):
            yield self._redraw(seq)

    def _redraw(self, seq: int) -> Rewind:
        for strand in self._strands.values():
            strand.redrawn()
        self._whole = True
        return Rewind(seq, tuple(self._message(choice) for choice in range(self._choices)))

    def _message(self, choice: int) -> Message:
        mine = {kind: strand.standing for (at, kind), strand in self._strands.items() if at == choice}
        calls = sorted((kind, text) for kind, text in mine.items() if isinstance(kind, int) and text)
        return Message(
            "assistant",
            mine.get("text", ""),
            mine.get("reasoning", ""),
            tuple(ToolCall(*text.split("\0", 2)) for _, text in calls),
        )


def _texts(answers: Sequence[Message]) -> dict[Key, str]:
    texts: dict[Key, str] = {}
    for choice, answer in enumerate(answers):
        texts[choice, "text"], texts[choice, "reasoning"] = answer.text, answer.reasoning
        for index, call in enumerate(answer.calls):
            texts[choice, index] = _head(call.id, call.name) + call.arguments
    return texts


def _key(event: Said) -> Key:
    if isinstance(event, ToolCallDelta):
        return event.choice, event.index
    return event.choice, "text" if isinstance(event, Delta) else "reasoning"


def _text(event: Said) -> str:
    if isinstance(event, ToolCallDelta):
        return (_head(event.id, event.name) if event.id or event.name else "") + event.arguments
    return event.text


def _head(id: str, name: str) -> str:
    # Another id makes it another call.
    return f"{id}\0{name}\0"


def _rest(event: Said, text: str, tokens: int) -> Event:
    """The end of an event whose beginning the caller has."""
    if isinstance(event, ToolCallDelta):
        if len(text) > len(event.arguments):
            return replace(event, tokens=tokens)
        return replace(event, id="", name="", arguments=text, tokens=tokens)
    if isinstance(event, Delta):
        return replace(event, text=text, tokens=tokens, logprobs=event.logprobs[-tokens:] if tokens else ())
    return replace(event, text=text, tokens=tokens)
