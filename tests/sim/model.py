"""A model whose every token follows from all ids before it, so that the right answer is known; one character each."""

import string
from collections.abc import Iterator, Sequence

from services.core.request import Conversation, Message, Role, Sampling
from services.text.family import Abilities, Kind, Piece, Rest

NAME = "tiny"
STOP_ID = 0
CHARACTERS = string.ascii_letters + string.digits + "._"
HALVES = range(56, 64)  # their text comes with the next id's, as of a character in two tokens
CONTEXT = 4096
ROLES = {role: 300 + i for i, role in enumerate(Role)}


def after(state: int, id: int) -> int:
    return (state * 1_103_515_245 + id + 12_345) & 0x7FFF_FFFF


def state_of(ids: Sequence[int]) -> int:
    state = 1
    for id in ids:
        state = after(state, id)
    return state


def drawn(state: int, seed: int) -> int:
    return ((state ^ (seed * 7919)) >> 8) & 63


def sampled(prompt: Sequence[int], seed: int) -> Iterator[int]:
    """The ids that follow, the stop id last if it comes."""
    state = state_of(prompt)
    while True:
        yield (id := drawn(state, seed))
        state = after(state, id)


def prompt_of(messages: Sequence[Message]) -> list[int]:
    return [id for m in messages for id in (ROLES[m.role], *map(ord, m.text))]


def answer(messages: Sequence[Message], seed: int, most: int, stops: Sequence[str] = ()) -> tuple[str, str]:
    """The text, and why it ends: stop, stop_sequence or length."""
    text, reason = "", "length"
    for count, id in enumerate(sampled(prompt_of(messages), seed)):
        if count == most:
            break
        if id == STOP_ID:
            reason = "stop"
            break
        text += CHARACTERS[id]
        if found := [stop for stop in stops if text.endswith(stop)]:
            return text[: -len(max(found, key=len))], "stop_sequence"
    return text, reason


class TinyParser:
    def __init__(self) -> None:
        self.reasoning_tokens = 0
        self.mended: list[str] = []
        self.kind: Kind | None = Kind.CONTENT
        self.over = False
        self._held = ""

    def push(self, ids: Sequence[int]) -> list[Piece]:
        pieces = []
        for id in ids:
            self._held += CHARACTERS[id]
            if id not in HALVES:
                pieces.append(Piece(Kind.CONTENT, self._held))
                self._held = ""
        return pieces

    def finish(self, *, cut: bool) -> Rest:
        held, self._held = self._held, ""
        return Rest([Piece(Kind.CONTENT, held)] if held else [])


class TinyFamily:
    abilities = Abilities()
    stop_ids = (STOP_ID,)
    sampling = Sampling()
    vocab_size = 64
    context_length = CONTEXT
    longest_token = 4

    def prompt(self, conversation: Conversation) -> list[int]:
        return prompt_of(conversation.messages)

    def parser(self, conversation: Conversation, prompt: Sequence[int]) -> TinyParser:
        return TinyParser()

    def structure(self, conversation: Conversation) -> str:
        return ""

    def legal(self, conversation: Conversation) -> str:
        return ""

    def token(self, id: int) -> bytes:
        return CHARACTERS[id].encode()
