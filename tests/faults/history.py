"""What one client saw of one turn: every attempt, every event with its position and time. No process is asked."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

TERMINAL = ("finished", "error")


class Position(NamedTuple):
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One event. `text` is what a delta adds, or of a `rewind` what the answer is from here on."""

    at: float  # seconds of the monotonic clock
    position: Position
    kind: str  # started, delta, usage, finished, error, rewind
    text: str = ""
    tokens: int = 0  # of a delta; of `usage` the turn's completion tokens
    turn: str = ""  # with `started`
    outcome: str = ""  # with `error`
    confirmed: bool = False  # with `finished`: a second store has the turn
    resumable: bool = True  # with `started`


@dataclass(slots=True)
class Attempt:
    """One call. `status` is how it ended: "OK", a gRPC status, or "" while it runs."""

    at: float
    gateway: str
    method: str
    after: Position
    status: str = ""
    reason: str = ""  # of the status: ErrorInfo's, "" for a transport's
    details: str = ""
    ended: float = 0.0
    refused: float = 0.0  # seconds until a retry can succeed, as the refusal said


@dataclass(slots=True)
class History:
    """`deadline` is the turn's: seconds of the monotonic clock."""

    tenant: str
    prompt: str
    key: str
    began: float
    deadline: float
    attempts: list[Attempt] = field(default_factory=list)
    events: list[Seen] = field(default_factory=list)
    _watchers: list[tuple[Callable[["History"], bool], asyncio.Event]] = field(default_factory=list)

    def add(self, event: Seen) -> None:
        self.events.append(event)
        self.changed()

    def changed(self) -> None:
        for reached, told in self._watchers:
            if reached(self):
                told.set()

    async def until(self, reached: Callable[["History"], bool]) -> None:
        """Waits until the client has seen that much."""
        told = asyncio.Event()
        self._watchers.append((reached, told))
        if not reached(self):
            await told.wait()

    async def tokens(self, count: int) -> None:
        """Waits until deltas brought so many tokens."""
        await self.until(lambda seen: seen.delivered >= count or seen.terminal is not None)

    @property
    def delivered(self) -> int:
        return sum(event.tokens for event in self.events if event.kind == "delta")

    @property
    def turn(self) -> str:
        return next((event.turn for event in self.events if event.kind == "started"), "")

    @property
    def terminal(self) -> Seen | None:
        return next((event for event in self.events if event.kind in TERMINAL), None)

    @property
    def completed(self) -> bool:
        return self.terminal is not None and self.terminal.kind == "finished"

    @property
    def acknowledged(self) -> bool:
        """It completed, and was told to be safe."""
        return self.terminal is not None and self.terminal.confirmed

    @property
    def rewinds(self) -> int:
        return sum(event.kind == "rewind" for event in self.events)

    @property
    def position(self) -> Position:
        return self.events[-1].position if self.events else Position(0, 0)

    @property
    def text(self) -> str:
        return text_of(self.events)

    def next_after(self, moment: float) -> float:
        """Seconds from a moment to the first token after it."""
        later = (event.at for event in self.events if event.at > moment and event.kind == "delta")
        return next(later, float("inf")) - moment


def text_of(events: Iterable[Seen]) -> str:
    """The answer as the client has it."""
    text = ""
    for event in events:
        if event.kind == "rewind":
            text = event.text
        else:
            text += event.text
    return text
