"""What each stream of a drill gave its caller, and whether that is what it had to be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.client import Delta, Event, Finished, Rewind, Started, Usage, Used

State = Literal["waiting", "running", "finished", "failed"]
Position = tuple[int, int]  # epoch and seq of an event


@dataclass(slots=True)
class History:
    """One stream as its caller saw it. Times are seconds of a monotonic clock."""

    number: int
    text: str = ""
    tokens: int = 0
    state: State = "waiting"
    usage: Usage | None = None
    resumes: int = 0
    rewinds: int = 0
    disorder: int = 0  # events that did not come after the one before
    pause: float = 0.0  # the longest between two pieces of text
    error: str = ""
    _last: float | None = None
    _position: Position = (0, 0)

    def hear(self, event: Event, position: Position, now: float) -> None:
        self.disorder += position <= self._position and not isinstance(event, Rewind | Started)
        self._position = position
        match event:
            case Delta():
                self.state = "running"
                self.text += event.text
                self.tokens += event.tokens
                self.pause = self.pause_at(now)
                self._last = now
            case Rewind():
                self.text, self.rewinds = event.answers[0].text, self.rewinds + 1
            case Used():
                self.usage = event.usage
            case Finished():
                self.state = "finished"
            case _:
                pass

    def fail(self, error: str) -> None:
        self.state, self.error = "failed", error

    def pause_at(self, now: float) -> float:
        """The longest pause, that which lasts included."""
        if self.state != "running" or self._last is None:
            return self.pause
        return max(self.pause, now - self._last)

    @property
    def over(self) -> bool:
        return self.state in ("finished", "failed")

    @property
    def moves(self) -> int:
        """How often it went on elsewhere: at another replica, by another gateway, over another connection."""
        return self.resumes + (self.usage.migrations + self.usage.takeovers if self.usage else 0)


def wrong(history: History, asked: int, twin: History | None) -> str:
    """What a finished stream has lost, repeated or reordered; empty if nothing.

    `asked` is how many tokens it had to have. `twin` is the same stream where nothing was killed, if the engine
    answers the same question with the same tokens.
    """
    if history.usage is None:
        return "no usage came"
    if history.disorder:
        return f"{history.disorder} events out of order"
    counted = history.usage.completion_tokens
    if counted != asked:
        return f"{counted} tokens sampled instead of {asked}"
    # A rewind replaces text whose tokens were counted already.
    if not history.rewinds and history.tokens != counted:
        much = history.tokens - counted
        return f"{much} tokens repeated" if much > 0 else f"{-much} tokens lost"
    if twin is not None and history.text != twin.text:
        return f"other text than its twin's from character {_parting(history.text, twin.text)} on"
    return ""


def _parting(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed, and whether it was seen to be gone."""

    what: str
    pid: int
    gone: bool

    def __str__(self) -> str:
        return f"1 {self.what} killed (pid {self.pid}), proof: {'gone' if self.gone else 'none, it lives'}"


@dataclass(frozen=True, slots=True)
class Verdict:
    streams: int
    finished: int
    moved: int
    pause: float
    exact: bool
    kills: tuple[Kill, ...]
    faults: dict[int, str] = field(default_factory=dict)  # by the stream's number

    @property
    def good(self) -> bool:
        """A drill whose kill reached no stream has shown nothing."""
        struck = bool(self.kills) and all(kill.gone for kill in self.kills) and self.moved > 0
        return struck and self.finished == self.streams and not self.faults

    def line(self) -> str:
        parts = [f"{self.finished} of {self.streams} streams finished"]
        if self.faults:
            parts.append(f"{len(self.faults)} are not what they had to be")
        else:
            how = "compared with unfailed twins" if self.exact else "by their counts"
            parts.append(f"0 tokens lost, repeated or reordered ({how})")
        parts += [f"{self.moved} went on elsewhere", f"longest pause {self.pause:.2f} s"]
        return "; ".join([*parts, *map(str, self.kills)])


def judge(
    histories: Sequence[History], asked: int, twins: Sequence[History], kills: Iterable[Kill]
) -> Verdict:
    """`twins` is empty where the engine does not answer exactly alike twice."""
    ended = [history for history in histories if history.state == "finished"]
    found = {h.number: wrong(h, asked, twins[h.number] if twins else None) for h in ended}
    failed = {h.number: h.error for h in histories if h.state == "failed"}
    return Verdict(
        streams=len(histories),
        finished=len(ended),
        moved=sum(history.moves > 0 for history in histories),
        pause=max((history.pause for history in histories), default=0.0),
        exact=bool(twins),
        kills=tuple(kills),
        faults={number: fault for number, fault in (found | failed).items() if fault},
    )
