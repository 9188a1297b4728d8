"""One turn at a time writes to a session: the others are refused, or wait in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from services.core.clock import Clock, Deadline
from services.core.errors import DeadlineExceeded, HeadraceError, StoreAway
from services.sessions.port import SessionStore, busy

LEASE = 15.0  # seconds; longer than another gateway needs to take a turn over
RENEW = 5.0  # seconds between renewals
FIRST_LOOK, LAST_LOOK = 0.02, 0.25  # seconds between two looks of a turn that waits
AGAIN = (0.5, 0.5, 1.0, 1.0, *(2.0,) * 6)  # seconds before each repeat of a release; together a lease


@dataclass(slots=True)
class Hold:
    """What a turn has, or wants, of a session.

    `elsewhere()`: another gateway may have taken the turn over; it has the same id, and so the session. `settled()`:
    whether none will, for the store has the turn's ending or was never told of the turn; None while that is open.
    `doubtful`: a call was given up before its answer, and may reach the store whenever it likes.
    """

    sessions: SessionStore
    tenant: str
    session: str
    turn: str
    elsewhere: Callable[[], bool] = lambda: False
    settled: Callable[[], bool | None] = lambda: True
    doubtful: bool = False

    async def acquire(self, *, wait: bool = False) -> bool:
        """Whether it is the turn's now, for a lease. Raises NotFound, Full, StoreAway."""
        before, self.doubtful = self.doubtful, True
        try:
            holder = await self.sessions.acquire(self.tenant, self.session, self.turn, LEASE, wait=wait)
        except StoreAway:
            raise
        except HeadraceError:
            self.doubtful = before
            raise
        self.doubtful = before
        return holder == self.turn

    async def let_go(self) -> bool:
        """Whether the store has heard it."""
        with suppress(StoreAway):
            await self.sessions.release(self.tenant, self.session, self.turn)
            return True
        return False

    async def insist(self) -> None:
        """Lets go of what a lost release, or a call that came after it, would keep closed for a lease."""
        for pause in AGAIN:
            await asyncio.sleep(pause)
            settled = self.settled()
            if settled is False or (settled and await self.let_go()):
                return


@asynccontextmanager
async def writing(
    hold: Hold,
    *,
    queue: bool,
    clock: Clock,
    deadline: Deadline,
    later: Callable[[Coroutine[Any, Any, None], str], object],
) -> AsyncIterator[None]:
    """Holds the session for the turn. `later` runs in the background what the end of the turn does not wait for.

    Raises Conflict while another turn holds it; with `queue` it waits instead, and raises DeadlineExceeded at
    the deadline and Full if too many wait. Raises NotFound, StoreAway.
    """
    over, told = asyncio.Event(), False
    try:
        await _acquire(hold, queue, clock, deadline)
        renewing = asyncio.create_task(_renew(hold, over), name=f"writer {hold.turn}")
        try:
            yield
        finally:
            # Not cancelled: a renewal on its way would reach the store after the release.
            over.set()
            await asyncio.wait([renewing])
    finally:
        try:
            told = not hold.elsewhere() and await hold.let_go()
        finally:  # also of a turn that is cancelled again, here
            if hold.doubtful or not told:
                later(hold.insist(), f"letting go {hold.turn}")


async def _acquire(hold: Hold, queue: bool, clock: Clock, deadline: Deadline) -> None:
    look = FIRST_LOOK
    while not await hold.acquire(wait=queue):
        if not queue:
            raise busy()
        left = deadline.remaining(clock)
        if left == 0:
            raise DeadlineExceeded("other turns were writing to the session until the deadline")
        await asyncio.sleep(look if left is None else min(look, left))
        look = min(2 * look, LAST_LOOK)


async def _renew(hold: Hold, over: asyncio.Event) -> None:
    """Ends early when the session is another turn's or gone: the append says so in its time."""
    while not await _within(over, RENEW):
        try:
            if not await hold.acquire():
                return
        except StoreAway:
            continue
        except HeadraceError:
            return


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
