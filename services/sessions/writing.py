"""One turn at a time writes to a session: the others are refused, or wait in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from services.core.clock import Clock, Deadline
from services.core.errors import DeadlineExceeded, HeadraceError, StoreAway
from services.sessions.port import SessionStore, busy

LEASE = 15.0  # seconds; longer than another gateway needs to take a turn over
RENEW = 5.0  # seconds between renewals
FIRST_LOOK, LAST_LOOK = 0.02, 0.25  # seconds between two looks of a turn that waits


@asynccontextmanager
async def writing(
    sessions: SessionStore,
    tenant: str,
    id: str,
    turn: str,
    *,
    queue: bool,
    clock: Clock,
    deadline: Deadline,
    elsewhere: Callable[[], bool] = lambda: False,
) -> AsyncIterator[None]:
    """Holds the session for the turn. One that is taken over by another gateway keeps its id, and so the session:
    where `elsewhere()` says so at the end, it is not let go.

    Raises Conflict while another turn holds it; with `queue` it waits instead, and raises DeadlineExceeded at
    the deadline and Full if too many wait. Raises NotFound, StoreAway.
    """
    over = asyncio.Event()
    try:
        await _acquire(sessions, tenant, id, turn, queue, clock, deadline)
        renewing = asyncio.create_task(_renew(sessions, tenant, id, turn, over), name=f"writer {turn}")
        try:
            yield
        finally:
            # Not cancelled: a renewal on its way would reach the store after the release.
            over.set()
            await asyncio.gather(renewing, return_exceptions=True)
    finally:
        if not elsewhere():
            # Where the store is away the lease ends by itself.
            with suppress(StoreAway):
                await sessions.release(tenant, id, turn)


async def _acquire(
    sessions: SessionStore, tenant: str, id: str, turn: str, queue: bool, clock: Clock, deadline: Deadline
) -> None:
    look = FIRST_LOOK
    while await sessions.acquire(tenant, id, turn, LEASE, wait=queue) != turn:
        if not queue:
            raise busy()
        left = deadline.remaining(clock)
        if left == 0:
            raise DeadlineExceeded("other turns were writing to the session until the deadline")
        await asyncio.sleep(look if left is None else min(look, left))
        look = min(2 * look, LAST_LOOK)


async def _renew(sessions: SessionStore, tenant: str, id: str, turn: str, over: asyncio.Event) -> None:
    """Ends early when the session is another turn's or gone: the append says so in its time."""
    while not await _within(over, RENEW):
        try:
            if await sessions.acquire(tenant, id, turn, LEASE) != turn:
                return
        except StoreAway:
            continue
        except HeadraceError:
            return


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
