"""What a turn's journal promises, whoever keeps it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

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
        """All events numbered above `after`; waits for one. Empty once the terminal event was read."""
        ...
