"""Two judges of an engine: a canary that generates, and a watchdog that counts steps.

A process that answers can still be unable to generate, so the only accepted proof of life is a token
that went through the scheduler which serves everyone. Both judges are asked, they never act.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from cluster.engine.port import EngineError, Load


class Unhealthy(Exception):
    """The engine does not work; the message says what was observed and for how long."""


class Clock(Protocol):
    """Seconds that only grow, and a way to let them pass."""

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Seconds. A canary behind a queue may wait its turn longer than one that waits alone."""

    canary_period_s: float = 5.0
    canary_timeout_s: float = 20.0
    canary_queued_timeout_s: float = 120.0
    stall_s: float = 30.0


class Health:
    """Judges one engine by `probe` (generates one token, raises EngineError) and `load`."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        load: Callable[[], Load],
        limits: HealthLimits,
        clock: Clock,
    ) -> None:
        self._probe = probe
        self._load = load
        self._limits = limits
        self._clock = clock
        self._probing_since: float | None = None
        self._failure = ""
        self.failures = 0  # canaries that failed or came too late
        self._late = False  # the one that is on its way
        self._progress = (0, clock.monotonic())

    async def run(self) -> None:
        """Send canaries for ever; ends when one fails, for an engine does not heal."""
        while not self._failure:
            await self.probe_once()
            await self._clock.sleep(self._limits.canary_period_s)

    async def probe_once(self) -> None:
        """Send one canary and wait for it. Its failure is kept for `check`."""
        self._probing_since, self._late = self._clock.monotonic(), False
        try:
            await self._probe()
        except EngineError as error:
            self._failure = str(error)
            self.failures += not self._late
        self._probing_since = None

    def check(self) -> None:
        """Raise Unhealthy when the engine failed, keeps a canary too long, or stands still."""
        if self._failure:
            raise Unhealthy(self._failure)
        load, now = self._load(), self._clock.monotonic()
        self._check_canary(load, now)
        self._check_progress(load, now)

    def _check_canary(self, load: Load, now: float) -> None:
        if self._probing_since is None:
            return
        alone = load.waiting <= 1
        limit = self._limits.canary_timeout_s if alone else self._limits.canary_queued_timeout_s
        if (waited := now - self._probing_since) > limit:
            self.failures += not self._late
            self._late = True
            raise Unhealthy(f"no token for the canary in {waited:.1f} s")

    def _check_progress(self, load: Load, now: float) -> None:
        steps, since = self._progress
        if load.steps != steps or load.running + load.waiting == 0:
            self._progress = (load.steps, now)
        elif now - since > self._limits.stall_s:
            turns = load.running + load.waiting
            raise Unhealthy(f"no engine step in {now - since:.1f} s with {turns} turns")
