"""Time, ids and randomness: the only module that reads them, so that tests can replace them."""

import secrets
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never going back."""
        ...

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time; None means there is none."""

    at: float | None

    @classmethod
    def after(cls, clock: Clock, seconds: float | None) -> "Deadline":
        return cls(None if seconds is None else clock.monotonic() + seconds)

    def remaining(self, clock: Clock) -> float | None:
        """Seconds left, at least 0; None without a deadline."""
        return None if self.at is None else max(0.0, self.at - clock.monotonic())


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """An unguessable id such as `turn_…` with 128 random bits."""
        ...


class RandomIds:
    def new(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(16)}"


def random_bytes(count: int) -> bytes:
    """Unguessable."""
    return secrets.token_bytes(count)
