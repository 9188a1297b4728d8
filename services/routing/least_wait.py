"""Chooses a replica: the one with the shortest predicted wait for its capacity."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A replica as routing sees it."""

    @property
    def ready(self) -> bool: ...

    @property
    def turns(self) -> int:
        """Turns running or waiting on it, this gateway's own newest ones included."""
        ...

    @property
    def capacity(self) -> int: ...

    @property
    def kv_use(self) -> float: ...


C = TypeVar("C", bound=Candidate)


def choose(candidates: Iterable[C]) -> C | None:
    """The least loaded ready replica with room; None if every ready one is full or none is ready."""
    open_ones = [c for c in candidates if c.ready and c.turns < c.capacity]
    return min(open_ones, key=lambda c: (c.turns / c.capacity, c.kv_use), default=None)
