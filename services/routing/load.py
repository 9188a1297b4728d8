"""How busy a replica is, and how busy it may be: pure functions over what the links report."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Protocol, TypeVar

EPSILON = 0.25  # a replica holds at most so much above the mean before a key goes elsewhere
SPARE = 1 / 32  # share of its capacity that a replica may always hold
STALE_LOAD = 1.0  # seconds that a ping may stay unanswered before the replica counts as full
PREFILL_RATE = 10_000  # tokens/s
BATCH_WAIT = 1.0  # seconds that a full batch costs a turn
KV_SCARCE = 0.9  # share of KV blocks from which turns begin to wait for some
WARM_AFTER = 10.0  # seconds until a replica takes its whole share
COLD_SHARE = 0.1  # what it takes at first


class Candidate(Protocol):
    """A replica as routing sees it. Times are seconds of one monotonic clock."""

    @property
    def name(self) -> str: ...

    @property
    def ready(self) -> bool: ...

    @property
    def turns(self) -> int:
        """Turns running or waiting on it, this gateway's own newest ones included."""
        ...

    @property
    def capacity(self) -> int: ...

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens that wait for prefill, this gateway's own newest ones included."""
        ...

    @property
    def kv_use(self) -> float: ...

    @property
    def up_at(self) -> float:
        """When it was connected."""
        ...

    @property
    def asked_at(self) -> float:
        """When the oldest ping went out that nothing was heard since; infinity if there is none. Not when it was
        last heard: a process that stood still has not heard anybody."""
        ...

    @property
    def pace(self) -> float:
        """Seconds from one token to the next on it, lately; 0 while unknown."""
        ...


C = TypeVar("C", bound=Candidate)


def has_room(candidate: Candidate, now: float) -> bool:
    """Whether a turn may be sent to it at all. What a replica said too long ago is not believed."""
    fresh = now - candidate.asked_at < STALE_LOAD
    return candidate.ready and fresh and candidate.turns < candidate.capacity


def predicted_wait(candidate: Candidate) -> float:
    """Seconds that a turn waits there longer than on an idle replica: for the prompts before it, in a batch that
    steps more slowly the fuller it is, and for KV blocks. Good for comparison, not as a promise."""
    prefill = candidate.queued_tokens / PREFILL_RATE
    batch = BATCH_WAIT * candidate.turns / candidate.capacity
    scarce = BATCH_WAIT * max(0.0, candidate.kv_use - KV_SCARCE) / (1 - KV_SCARCE)
    return prefill + batch + scarce


def least_wait(candidates: Sequence[C]) -> C:
    """Of equal waits the one with more KV blocks left. Raises ValueError without candidates."""
    return min(candidates, key=lambda c: (predicted_wait(c), c.kv_use))


def warmth(since: float, now: float) -> float:
    """Share of its load that a replica takes which came at `since`: from COLD_SHARE to 1 in WARM_AFTER seconds."""
    return COLD_SHARE + (1 - COLD_SHARE) * min(1.0, max(0.0, (now - since) / WARM_AFTER))


def bounds(candidates: Sequence[Candidate], warm: Mapping[str, float]) -> dict[str, int]:
    """How many turns each may hold when one more comes: 1 + EPSILON of its share, by capacity and warmth, of all
    turns; at least the spare part of its capacity, at most all of it."""
    total = sum(c.turns for c in candidates) + 1
    weights = {c.name: warm[c.name] * c.capacity for c in candidates}
    whole = sum(weights.values())
    return {
        c.name: min(
            c.capacity,
            max(ceil((1 + EPSILON) * total * weights[c.name] / whole), ceil(SPARE * weights[c.name])),
        )
        for c in candidates
    }
