"""Models with a Jinja chat template as a Family: everything but harmony."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.core.clock import Clock
from services.core.errors import InvalidRequest, Violation
from services.core.request import Conversation, Sampling
from services.text import structure
from services.text.checkpoint import Checkpoint
from services.text.detokenize import Detokenizer
from services.text.family import Kind, Piece, Rest
from services.text.template import ChatTemplate


class PlainParser:
    """Everything is content."""

    __slots__ = ("_detokenizer", "_said", "mended", "over", "reasoning_tokens")

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._detokenizer = Detokenizer(checkpoint)
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

    @classmethod
    def load(cls, folder: Path, clock: Clock) -> "Chat":
        """Raises CheckpointError for a tokenizer or template that cannot be loaded."""
        checkpoint = Checkpoint.load(folder)
        return cls(checkpoint, ChatTemplate(checkpoint, clock))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.checkpoint.stop_ids

    @property
    def sampling(self) -> Sampling:
        return self.checkpoint.sampling

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
        if conversation.functions:
            raise InvalidRequest(Violation("tools", "this model takes no tools"))
        return self.template.prompt(conversation)

    def parser(self, conversation: Conversation, prompt: Sequence[int]) -> PlainParser:
        return PlainParser(self.checkpoint)

    def structure(self, conversation: Conversation) -> str:
        format = conversation.format
        return "" if format is None else structure.whole(structure.content(format))

    def token(self, id: int) -> bytes:
        table = self.checkpoint.token_bytes
        if table is not None:
            return table.get(id, b"")
        text: str = self.checkpoint.tokenizer.decode([id], skip_special_tokens=True)
        return text.encode()
