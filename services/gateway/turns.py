"""The turns that run in this worker, and how long each stays when nobody reads it."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from services.core.errors import Cancelled, DeadlineExceeded
from services.core.tasks import Tasks
from services.gateway.turn import Turn
from services.telemetry import metrics

WATCHED = 3.0  # seconds that a sign of a reader elsewhere counts


class Turns:
    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._all: dict[str, Turn] = {}

    def __len__(self) -> int:
        return len(self._all)

    def all(self) -> list[Turn]:
        return list(self._all.values())

    def runs(self, id: str) -> bool:
        turn = self._all.get(id)
        return turn is not None and not turn.journal.left

    def find(self, id: str, tenant: str) -> Turn | None:
        """A turn that runs here, or whose readers are still here."""
        turn = self._all.get(id)
        return turn if turn is not None and turn.tenant.id == tenant and not turn.journal.left else None

    def start(self, turn: Turn, work: Coroutine[Any, Any, None]) -> None:
        """Runs the turn. What it holds is released when it has ended and its readers have left."""
        self._all[turn.id] = turn
        metrics.IN_FLIGHT.inc()
        metrics.TENANT_IN_FLIGHT.labels(turn.label).inc()
        turn.task = self._tasks.start(work, turn.id)
        turn.task.add_done_callback(lambda _: self._settle(turn))

    @contextmanager
    def reading(self, turn: Turn) -> Iterator[None]:
        turn.readers += 1
        _stop_waiting(turn)
        try:
            yield
        finally:
            turn.readers -= 1
            self._settle(turn)
            self.linger(turn)

    def linger(self, turn: Turn) -> None:
        """Ends the turn if nobody reads it until its time to linger is over."""
        seconds = turn.asked.life.linger
        if turn.readers or turn.outcome is not None or seconds == float("inf"):
            return
        if seconds:
            self._wait(turn, seconds)
        else:
            self._lonely(turn)

    def _wait(self, turn: Turn, seconds: float) -> None:
        turn.lonely = asyncio.get_running_loop().call_later(seconds, self._lonely, turn)

    def _lonely(self, turn: Turn) -> None:
        linger, now = turn.asked.life.linger, turn.clock.monotonic()
        if linger and now - turn.watched < max(linger, WATCHED):
            self._wait(turn, linger)
        elif turn.deadline.remaining(turn.clock) == 0:
            turn.fail(DeadlineExceeded("the call's deadline passed"))
        else:
            turn.fail(Cancelled("the caller went away" if not linger else f"nobody read it for {linger:g} s"))

    def _settle(self, turn: Turn) -> None:
        over = turn.readers == 0 and turn.task is not None and turn.task.done()
        if not over or turn.settled:
            return
        turn.settled = True
        _stop_waiting(turn)
        if self._all.get(turn.id) is turn:  # it may have come back meanwhile
            del self._all[turn.id]
        metrics.IN_FLIGHT.dec()
        metrics.TENANT_IN_FLIGHT.labels(turn.label).dec()
        turn.held.close()


def _stop_waiting(turn: Turn) -> None:
    """For a reader. What waits holds the turn and its journal, for as long as an hour."""
    if turn.lonely is not None:
        turn.lonely.cancel()
        turn.lonely = None
