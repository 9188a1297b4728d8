"""A circuit breaker: while a store does not answer, calls to it end at once instead of waiting their budget."""

from collections.abc import Callable
from enum import StrEnum
from types import TracebackType

from redis import exceptions

from services.core.clock import Clock
from services.core.errors import StoreAway

FAILURES = 5  # consecutive, then it opens
PROBE = 0.3  # seconds between the calls that an open one lets through
QUIET = 0.25  # seconds; who answered anybody within them lives: it is busy, or this process is

# No answer, or one that says "not now" to every command. A refusal of one command is an answer.
SILENCE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    OSError,
)


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"


class Breaker:
    """Used as `with breaker:` around each call. Entering raises StoreAway while it is open, but for one call
    each `probe` seconds; any answer closes it. A cancelled call says nothing about the store."""

    def __init__(
        self,
        clock: Clock,
        *,
        failures: int = FAILURES,
        probe: float = PROBE,
        on_change: Callable[[State], None] = lambda state: None,
    ) -> None:
        self._clock = clock
        self._most = failures
        self._probe = probe
        self._on_change = on_change
        self._failed = 0
        self._answer = float("-inf")  # when the last one came
        self._next_probe: float | None = None  # None: closed

    @property
    def state(self) -> State:
        return State.CLOSED if self._next_probe is None else State.OPEN

    def __enter__(self) -> None:
        if self._next_probe is not None:
            now = self._clock.monotonic()
            if now < self._next_probe:
                raise StoreAway("the session and key store has not answered lately")
            self._next_probe = now + self._probe

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or (issubclass(kind, exceptions.ResponseError) and not issubclass(kind, SILENCE)):
            self._answer = self._clock.monotonic()
            if self._failed:
                self._answered()
        elif issubclass(kind, SILENCE) and not self._only_busy(kind):
            self._silent()

    def _answered(self) -> None:
        self._failed = 0
        if self._next_probe is not None:
            self._next_probe = None
            self._on_change(State.CLOSED)

    def _only_busy(self, kind: type[BaseException]) -> bool:
        """Whether a call came late while others were answered."""
        late = issubclass(kind, (TimeoutError, exceptions.TimeoutError))
        return late and self._clock.monotonic() - self._answer < QUIET

    def _silent(self) -> None:
        self._failed += 1
        if self._failed >= self._most and self._next_probe is None:
            self._next_probe = self._clock.monotonic() + self._probe
            self._on_change(State.OPEN)
