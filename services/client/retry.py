"""When a call that broke is tried again: for how long, how often, and what all calls of a client may spend on it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.client.errors import HeadraceError

TRANSPORT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)
ENDPOINTS_OWN = ("DRAINING", "STORE_AWAY")


def passing(error: HeadraceError) -> bool:
    """Whether the way to the turn is lost and not the turn: the transport's word, or that of a gateway that leaves."""
    return error.outcome in ENDPOINTS_OWN if error.reached else error.code in TRANSPORT


def keyless(asked: Any, lost: HeadraceError, tries: "Tries", *, drawn: bool) -> bool:
    """Takes the client's own key out of a request that was refused for it: the store that knows keys is away, and
    the endpoint runs turns without one. Only what the endpoint itself refused, at the first try, did not begin."""
    needs = not (drawn and isinstance(asked, pb.GenerateRequest)) or asked.session or asked.durable
    if needs or not asked.idempotency_key or lost.outcome != "STORE_AWAY" or not tries.first:
        return False
    asked.idempotency_key = ""
    return True


def repeatable(asked: Any, lost: HeadraceError) -> bool:
    """Whether it can be sent again without running twice."""
    return lost.reached or not isinstance(asked, pb.GenerateRequest) or bool(asked.idempotency_key)


@dataclass(frozen=True, slots=True)
class Resume:
    """How a call is taken up again after its connection broke. Times are in seconds.

    A call gives up after `seconds` or `attempts` without anything new; after `first_seconds` while the endpoint
    has never answered this client. The n-th pause is drawn from 0 to min(longest, first * 2**n).
    """

    seconds: float = 30.0
    attempts: int = 60
    first_seconds: float = 5.0
    first_pause: float = 0.1
    longest_pause: float = 2.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = field(default=random.SystemRandom().random)  # 0 to 1


@dataclass(slots=True)
class Budget:
    """Retries of all calls of a client: a tenth of the calls, and `tokens` to begin with."""

    share: float = 0.1
    most: float = 50.0
    tokens: float = 50.0
    answered: bool = False  # the endpoint has answered this client

    def called(self) -> None:
        self.tokens = min(self.most, self.tokens + self.share)

    def take(self) -> bool:
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Tries:
    """The attempts of one call. `timeout` is for all of them together, pauses included; None is no limit."""

    def __init__(self, how: Resume | None, budget: Budget, timeout: float | None) -> None:
        self._how, self._budget = how, budget
        self._clock = (how or Resume()).clock
        self._deadline = None if timeout is None else self._clock() + timeout
        self._failed = 0
        self._since = 0.0
        budget.called()

    @property
    def first(self) -> bool:
        """Nothing was tried before that may have arrived."""
        return self._failed == 0

    def left(self) -> float | None:
        return None if self._deadline is None else max(0.001, self._deadline - self._clock())

    def moved(self) -> None:
        self._failed = 0
        self._budget.answered = True

    async def again(self, error: HeadraceError, *, running: bool) -> None:
        """Returns when the next attempt is due; raises the error if there is none.

        `running` says that a turn runs which would be lost: it is read again with an empty budget too, slowly.
        """
        if self._how is None:
            raise error
        now = self._clock()
        self._since = self._since if self._failed else now
        self._failed += 1
        pause = self._pause(self._how, error, running)
        patient = running or self._budget.answered
        until = self._since + (self._how.seconds if patient else self._how.first_seconds)
        if self._deadline is not None:
            until = min(until, self._deadline)
        if self._failed > self._how.attempts or pause is None or now + pause >= until:
            raise error
        await self._how.sleep(pause)

    def _pause(self, how: Resume, error: HeadraceError, running: bool) -> float | None:
        if self._budget.take():
            most = min(how.longest_pause, how.first_pause * 2.0 ** min(self._failed - 1, 16))
            return (error.retry_after or 0.0) + how.draw() * most
        return how.longest_pause * (1 + how.draw()) / 2 if running else None
