"""What a session is, what bounds it, and the port to where sessions are kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.core.errors import Conflict, Full, InvalidRequest, NotFound, Violation
from services.core.request import Message

MAX_MESSAGES = 2000
MAX_TEXT_BYTES = 4 * 1024 * 1024  # of UTF-8, all messages together
MAX_PAGE = 100
DEFAULT_PAGE = 50
MAX_TURNS = 1000  # of one part
PART_BYTES = 1024 * 1024  # of text in one part, unless a turn alone has more
MAX_SUMMARY_BYTES = 256 * 1024
MAX_WAITING = 64  # turns that wait for one session
PATIENCE = 3.0  # seconds that a waiting turn keeps its place without asking again

ID = re.compile(r"session_[0-9a-f]{32}", re.ASCII)
# A place in the list: creation time in microseconds, then the id, so that equal times keep an order.
PLACE = re.compile(r"([0-9a-f]{16})(session_[0-9a-f]{32})", re.ASCII)


@dataclass(frozen=True, slots=True)
class SessionTurn:
    """What one append added. The first is what the session was created with, and no turn's."""

    id: str  # of the turn; may be empty
    version: int  # of the session after it
    created: float
    first: int  # index of its first message
    count: int  # of its messages
    size: int  # bytes of their text
    model: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the model is shown in place of the first `covers` messages, system messages aside."""

    covers: int
    text: str


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. Times are seconds since the epoch; a list has no messages, turns and summaries."""

    id: str
    version: int  # 1 when created, plus one for every append
    messages: tuple[Message, ...]
    created: float
    expires: float
    turns: tuple[SessionTurn, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    forked_from: str = ""
    forked_at: int = 0  # version of that session
    summary: Summary | None = None


@dataclass(frozen=True, slots=True)
class Page:
    sessions: tuple[Session, ...]
    next_page_token: str  # empty on the last page


@dataclass(frozen=True, slots=True)
class Part:
    """`session` with consecutive turns and their messages only."""

    session: Session
    next_version: int  # of the turn after them; 0 after the last one


class SessionStore(Protocol):
    """Every verb raises InvalidRequest for ill-formed input and StoreAway if the store does not answer.

    Another tenant's session, an expired one and one that never was are the same NotFound.
    """

    async def create(
        self,
        tenant: str,
        messages: Sequence[Message],
        ttl: float,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Session:
        """`ttl`: seconds from the last change to the end."""
        ...

    async def get(self, tenant: str, id: str) -> Session:
        """The whole of it, at one instant."""
        ...

    async def read(self, tenant: str, id: str, from_version: int = 0, max_turns: int = 0) -> Part:
        """Turns from that version on: as many as have 1 MiB of text together, and at least one."""
        ...

    async def append(
        self,
        tenant: str,
        id: str,
        expected_version: int,
        messages: Sequence[Message],
        *,
        operation: str = "",
        model: str = "",
    ) -> int:
        """Returns the new version and renews the ttl. Raises Conflict if the version is another one, or if
        another turn than `operation` has acquired the session.

        With an `operation` id, the turn's, an append can be repeated after a lost reply, whatever came after it:
        it happens once, and the repeat returns the version that it made.
        """
        ...

    async def fork(self, tenant: str, id: str, at_version: int = 0) -> Session:
        """A new session with the history up to and including that version; 0: the newest."""
        ...

    async def summarize(self, tenant: str, id: str, summary: Summary) -> None:
        """Keeps the summary, unless one that covers as much or more is kept."""
        ...

    async def acquire(self, tenant: str, id: str, turn: str, seconds: float, *, wait: bool = False) -> str:
        """Makes the turn the only one that may append, for so many seconds from now; again if it already is.

        Returns the turn whose time it is: this one, or the one that this one comes after. With `wait` it then
        stands in line, as long as it asks again every 3 s. Raises Full if 64 wait.
        """
        ...

    async def release(self, tenant: str, id: str, turn: str) -> None:
        """The turn neither writes nor waits any more. Can be repeated; a session that is gone is no error."""
        ...

    async def list(self, tenant: str, page_size: int = 0, page_token: str = "") -> Page:
        """Newest first. `page_size` 0 means 50."""
        ...

    async def delete(self, tenant: str, id: str) -> None: ...


def total_bytes(messages: Sequence[Message]) -> int:
    """Of everything that somebody wrote in them."""
    return sum(message.size for message in messages)


def check_id(id: str) -> None:
    if not ID.fullmatch(id):
        raise InvalidRequest(Violation("session", "must be an id that Sessions.Create returned"))


def check_bounds(messages: int, text: int) -> None:
    """`text`: bytes of all messages, the new ones included."""
    if messages > MAX_MESSAGES:
        raise InvalidRequest(Violation("session", f"may hold at most {MAX_MESSAGES} messages"))
    if text > MAX_TEXT_BYTES:
        raise InvalidRequest(Violation("session", f"may hold at most {MAX_TEXT_BYTES} bytes of text"))


def check_page(page_size: int, page_token: str) -> int:
    """Returns the page size to use."""
    if not 0 <= page_size <= MAX_PAGE:
        raise InvalidRequest(Violation("page_size", f"must be 0..{MAX_PAGE}"))
    if page_token and not PLACE.fullmatch(page_token):
        raise InvalidRequest(Violation("page_token", "must be the next_page_token of a previous page"))
    return page_size or DEFAULT_PAGE


def check_part(max_turns: int) -> int:
    """Returns the number of turns to read at most."""
    if not 0 <= max_turns <= MAX_TURNS:
        raise InvalidRequest(Violation("max_turns", f"must be 0..{MAX_TURNS}"))
    return max_turns or MAX_TURNS


def check_version(field: str, asked: int, version: int, otherwise: int) -> int:
    """The version that is meant, `otherwise` if none was named."""
    if not 0 <= asked <= version:
        raise InvalidRequest(Violation(field, f"a version of the session, 1..{version}, or 0"))
    return asked or otherwise


def check_summary(summary: Summary, messages: int) -> None:
    if not 1 <= summary.covers <= messages:
        raise InvalidRequest(Violation("summary", "covers messages that the session has"))
    if len(summary.text.encode()) > MAX_SUMMARY_BYTES:
        raise InvalidRequest(Violation("summary", f"may have at most {MAX_SUMMARY_BYTES} bytes"))


def first_turns(turns: Sequence[SessionTurn]) -> Sequence[SessionTurn]:
    """As many as have 1 MiB of text together, and at least one."""
    size = 0
    for i, turn in enumerate(turns):
        size += turn.size
        if size > PART_BYTES and i:
            return turns[:i]
    return turns


def after(turns: Sequence[SessionTurn], version: int) -> int:
    """The version that follows these turns; 0 if the session ends with them."""
    return turns[-1].version + 1 if turns and turns[-1].version < version else 0


def cut(session: Session, at_version: int) -> Session:
    """The session as it was at that version, its turns being whole."""
    turns = session.turns[:at_version]
    messages = session.messages[: turns[-1].first + turns[-1].count]
    summary = session.summary if session.summary and session.summary.covers <= len(messages) else None
    return replace(session, version=at_version, turns=turns, messages=messages, summary=summary)


def place(created: float, id: str) -> str:
    return f"{round(created * 1e6):016x}{id}"


def id_at(place: str) -> str:
    return place[16:]


def absent() -> NotFound:
    return NotFound("no such session")


def conflict() -> Conflict:
    return Conflict("the session was changed by another turn")


class Busy(Conflict):
    """Another turn holds the session."""


def busy() -> Busy:
    return Busy("another turn is writing to this session")


def crowded() -> Full:
    return Full(f"{MAX_WAITING} turns wait for this session already")
