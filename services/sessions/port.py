"""What a session is, what bounds it, and the port to where sessions are kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.core.errors import Conflict, InvalidRequest, NotFound, Violation
from services.core.request import Message

MAX_MESSAGES = 2000
MAX_TEXT_BYTES = 4 * 1024 * 1024  # of UTF-8, all messages together
MAX_PAGE = 100
DEFAULT_PAGE = 50

ID = re.compile(r"session_[0-9a-f]{32}", re.ASCII)
# A place in the list: creation time in microseconds, then the id, so that equal times keep an order.
PLACE = re.compile(r"([0-9a-f]{16})(session_[0-9a-f]{32})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation. Times are seconds since the epoch; `messages` is empty in a list."""

    id: str
    version: int  # 1 when created, plus one for every append
    messages: tuple[Message, ...]
    created: float
    expires: float


@dataclass(frozen=True, slots=True)
class Page:
    sessions: tuple[Session, ...]
    next_page_token: str  # empty on the last page


class SessionStore(Protocol):
    """Every verb raises InvalidRequest for ill-formed input and StoreAway if the store does not answer.

    Another tenant's session, an expired one and one that never was are the same NotFound.
    """

    async def create(self, tenant: str, messages: Sequence[Message], ttl: float) -> Session:
        """`ttl`: seconds from the last change to the end."""
        ...

    async def get(self, tenant: str, id: str) -> Session: ...

    async def append(
        self,
        tenant: str,
        id: str,
        expected_version: int,
        messages: Sequence[Message],
        *,
        operation: str = "",
    ) -> int:
        """Returns the new version and renews the ttl. Raises Conflict if the version is another one.

        With an `operation` id the last append can be repeated after a lost reply: it happens once.
        """
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


def place(created: float, id: str) -> str:
    return f"{round(created * 1e6):016x}{id}"


def id_at(place: str) -> str:
    return place[16:]


def absent() -> NotFound:
    return NotFound("no such session")


def conflict() -> Conflict:
    return Conflict("the session was changed by another turn")
