"""What a turn's journal promises, whoever keeps it: the one in this process, and the store that outlives it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from services.core.errors import Precondition
from services.core.events import Event


class Entry(NamedTuple):
    seq: int  # from 1, without gaps
    event: Event


class Journal(Protocol):
    """The numbered events of one turn. One writer; any number of readers, each with its own cursor."""

    def append(self, event: Event) -> int:
        """Adds an event and returns its number. After a terminal event it raises ValueError."""
        ...

    async def read(self, after: int) -> Sequence[Entry]:
        """Events numbered above `after`, from the first; waits for one. Empty once the terminal event was read."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key with the request it stands for."""

    key: str
    digest: str  # of the request; hexadecimal
    keep: float  # seconds
    instead_of: str = ""  # a turn that has the key, but ended before it began


def placed(turn: str, tenant: str, claim: Claim | None) -> str:
    """The id with the last digit that its place in a Redis cluster asks for: beside its claim."""
    return turn if claim is None else turn[:-1] + hashed(tenant, claim)[-1]


def hashed(tenant: str, claim: Claim) -> str:
    return hashlib.sha256(f"{tenant}\0{claim.key}".encode()).hexdigest()


def one_request(held: str, claim: Claim) -> None:
    """Raises Precondition if the digest that the key holds is of another request."""
    if held != claim.digest:
        raise Precondition("idempotency_key: was used with another request")


@dataclass(frozen=True, slots=True)
class Record:
    """What a turn is, apart from its events: enough for another gateway to go on with it."""

    turn: str
    tenant: str
    gateway: str  # that runs it
    epoch: int  # of its writer; each one's is greater than those before
    request: bytes  # of the caller; opaque here
    seconds: float  # to the turn's deadline
    keep: float  # seconds that the journal is kept after its end
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive events of one turn, the first numbered `first`. No events: asks for news of the turn."""

    turn: str
    tenant: str
    epoch: int
    first: int
    events: Sequence[Event]
    ended: bool  # the last one is terminal
    keep: float


class Verdict(StrEnum):
    KEPT = "kept"
    CANCELLED = "cancelled"  # kept; and somebody asked to end the turn
    REALIGN = "realign"  # not kept: the store's last event is `Reply.seq`
    FENCED = "fenced"  # not kept: another gateway has the turn
    GONE = "gone"  # not kept: the store knows no such turn
    AWAY = "away"  # not kept, or not known to be: the part of the store that has the turn does not answer


class Reply(NamedTuple):
    verdict: Verdict
    seq: int  # of the last event that the store has
    size: int  # bytes of this turn's events in the store
    watched: float  # seconds since a reader at another gateway said it was there; infinite if none did


class Stored(NamedTuple):
    """A turn as the store has it. `ended`: its last event is terminal."""

    record: Record
    seq: int
    ended: bool
    cancelled: bool

    @property
    def void(self) -> bool:
        """It ended before it began: whoever asks again gets another try."""
        return self.ended and self.seq < 3  # a turn that began has Started, Usage and its ending


class Page(NamedTuple):
    """Consecutive entries as one epoch wrote them."""

    epoch: int
    entries: Sequence[Entry]


class JournalStore(Protocol):
    """Keeps turns beyond the process that runs them. Every verb raises StoreAway; each can be repeated after
    a lost reply.

    The writer of a turn is the gateway that created it or took it over last: `epoch` rises with every
    takeover, and what an older epoch appends is refused.
    """

    async def create(self, record: Record) -> str:
        """Stores a turn without events and claims its key, both or neither. Returns the id of the turn that
        has the key: this one's, or that of the one that was first. Raises Precondition if that one's request
        was another. A gateway that was forgotten is known again, as one that lapsed."""
        ...

    async def claimed(self, tenant: str, claim: Claim) -> str:
        """The id of the turn that has the key, or "". Raises Precondition if its request was another."""
        ...

    async def append(self, batches: Sequence[Batch]) -> Sequence[Reply]:
        """All batches in one round trip, each judged by itself. Raises StoreAway if no part of the store answers."""
        ...

    async def find(self, turn: str) -> Stored | None: ...

    async def read(self, turn: str, tenant: str, after: int) -> Sequence[Page]:
        """Entries numbered above `after`, oldest first. Raises ValueError for what this key cannot open."""
        ...

    async def watch(self, turn: str) -> None:
        """Says that somebody reads it elsewhere than at its gateway."""
        ...

    async def cancel(self, turn: str) -> None:
        """Asks the turn's gateway to end it. Nothing happens to one that has ended or is gone."""
        ...

    async def confirm(self, turn: str, seq: int) -> bool:
        """Whether the store and a replica of it have the turn's events up to `seq`."""
        ...

    async def take(self, turn: str, owner: str, gateway: str, least: int = 0) -> Stored | None:
        """Makes `gateway` the writer instead of `owner`, with the next epoch, `least` at least; None if the turn
        has ended, is gone, or has another writer by now. The two may be one: it goes on with a turn that it lost
        sight of."""
        ...

    async def beat(self, gateway: str, seconds: float) -> None:
        """This gateway lives for so many seconds more; 0 says that it leaves."""
        ...

    async def lapsed(self) -> Sequence[str]:
        """Gateways that said they live and whose time has passed."""
        ...

    async def orphans(self, gateway: str) -> Sequence[str]:
        """Running turns of that gateway. With none left, it is forgotten."""
        ...
