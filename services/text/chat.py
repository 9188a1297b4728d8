"""Models with a Jinja chat template as a Family: everything but harmony."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.core.clock import Clock
from services.core.errors import InvalidRequest, Violation
from services.core.request import Conversation, Sampling
from services.text import answers
from services.text.checkpoint import Checkpoint
from services.text.detokenize import Detokenizer
from services.text.family import Abilities, Kind, Parser, Piece, Rest
from services.text.marked import MarkedParser
from services.text.markup import Markup
from services.text.structure import is_demanded, offered, whole
from services.text.template import ChatTemplate

REASONER = Sampling(temperature=0.6, top_p=0.95)  # as deepseek-ai/DeepSeek-R1 recommends


class PlainParser:
    """Everything is content."""

    __slots__ = ("_detokenizer", "kind", "mended", "over", "reasoning_tokens")

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._detokenizer = Detokenizer(checkpoint)
        self.kind: Kind | None = Kind.CONTENT
        self.reasoning_tokens = 0
        self.mended: list[str] = []
        self.over = False

    def push(self, ids: Sequence[int]) -> list[Piece]:
        text = self._detokenizer.push(ids)
        return [Piece(Kind.CONTENT, text)] if text else []

    def finish(self, *, cut: bool) -> Rest:
        text = self._detokenizer.flush()
        return Rest([Piece(Kind.CONTENT, text)] if text else [])


@dataclass(frozen=True, slots=True)
class Chat:
    checkpoint: Checkpoint
    template: ChatTemplate
    markup: Markup

    @classmethod
    def load(cls, folder: Path, clock: Clock) -> "Chat":
        """Raises CheckpointError for a tokenizer or template that cannot be loaded."""
        checkpoint = Checkpoint.load(folder)
        return cls(checkpoint, ChatTemplate(checkpoint, clock), Markup.of(checkpoint))

    @property
    def abilities(self) -> Abilities:
        return Abilities(tools=self.markup.syntax is not None, reasoning=self.markup.thinks)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.checkpoint.stop_ids

    @property
    def sampling(self) -> Sampling:
        own = self.checkpoint.sampling
        if self.markup.ponders is None or own.temperature is not None:
            return own
        return replace(own, temperature=REASONER.temperature, top_p=own.top_p or REASONER.top_p)

    @property
    def vocab_size(self) -> int:
        return self.checkpoint.vocab_size

    @property
    def context_length(self) -> int:
        return self.checkpoint.context_length

    @property
    def longest_token(self) -> int | None:
        return self.checkpoint.longest_token

    def prompt(self, conversation: Conversation) -> list[int]:
        if self.markup.syntax is None:
            _refuse_tools(conversation)
        return self.template.prompt(conversation)

    def parser(self, conversation: Conversation, prompt: Sequence[int]) -> Parser:
        if not self.markup.marks:
            return PlainParser(self.checkpoint)
        names = frozenset(function.name for function in offered(conversation))
        thinking = self.markup.begins_thinking(prompt)
        return MarkedParser(self.checkpoint, self.markup, names, thinking=thinking)

    def structure(self, conversation: Conversation) -> str:
        return self.legal(conversation) if is_demanded(conversation) else ""

    def legal(self, conversation: Conversation) -> str:
        thinking = self.markup.begins_thinking(self.template.control(conversation))
        return whole(answers.of(conversation, self.markup, thinking=thinking))

    def token(self, id: int) -> bytes:
        table = self.checkpoint.token_bytes
        if table is not None:
            return table.get(id, b"")
        text: str = self.checkpoint.tokenizer.decode([id], skip_special_tokens=True)
        return text.encode()


def _refuse_tools(conversation: Conversation) -> None:
    if conversation.functions:
        raise InvalidRequest(Violation("tools", "this model takes no tools"))
    if any(message.calls or message.call_id for message in conversation.messages):
        raise InvalidRequest(Violation("messages", "this model takes no tool calls and no results of them"))
