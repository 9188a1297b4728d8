"""What a model family makes of a conversation, and of the ids that are sampled for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, Protocol

from services.core.request import Conversation, Sampling


class Kind(Enum):
    CONTENT = auto()
    REASONING = auto()
    CALL = auto()  # a tool call begins; the text is the function's name
    ARGUMENTS = auto()  # of the call that began last


class Piece(NamedTuple):
    kind: Kind
    text: str


JOINT = "\n\n"  # between two messages of a kind in one answer


@dataclass(slots=True)
class Rest:
    """The end of an answer: what was still held back, and what was wrong with the whole, if anything was."""

    pieces: list[Piece] = field(default_factory=list)
    flaw: str = ""


class Parser(Protocol):
    """Reads the ids of one answer. Any split of them gives the same text; whatever they are, nothing raises
    and no reasoning becomes content."""

    reasoning_tokens: int  # so far
    mended: list[str]  # names of what was wrong and could be read all the same
    kind: Kind | None  # of the token pushed last; None: of no text that is delivered
    over: bool  # nothing more can come of this answer, however long it goes on

    def push(self, ids: Sequence[int]) -> list[Piece]: ...

    def finish(self, *, cut: bool) -> Rest:
        """`cut`: the answer was ended from outside, so that what is missing is no flaw."""
        ...


@dataclass(frozen=True, slots=True)
class Abilities:
    tools: bool = False
    reasoning: bool = False
    effort: bool = False


class Family(Protocol):
    """The text side of one model."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    @property
    def sampling(self) -> Sampling:
        """Recommended values; None where there is no opinion."""
        ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def context_length(self) -> int:
        """Tokens, prompt and answer together."""
        ...

    @property
    def longest_token(self) -> int | None:
        """Bytes of text that a token can stand for at most; None where that is not known."""
        ...

    def prompt(self, conversation: Conversation) -> list[int]:
        """The ids up to where the answer begins. Raises InvalidRequest if there are none for it."""
        ...

    def parser(self, conversation: Conversation, prompt: Sequence[int]) -> Parser: ...

    def structure(self, conversation: Conversation) -> str:
        """The structural tag (JSON) that holds the answer to the format or to calls; empty: it is free."""
        ...

    def legal(self, conversation: Conversation) -> str:
        """The structural tag of any well-formed answer, for a second try after one that was not; may be empty."""
        ...

    def token(self, id: int) -> bytes:
        """The text of one token."""
        ...
