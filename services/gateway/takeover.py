"""Says that this gateway lives, and goes on with the turns of gateways that do not."""

import asyncio
import random
from collections.abc import Sequence

from services.core.clock import Deadline
from services.core.errors import Cancelled, HeadraceError, Internal, StoreAway
from services.core.events import Event
from services.gateway import pipeline
from services.gateway.asked import Asked, Life, request_of, tenant_of, unpack
from services.gateway.deps import Deps
from services.gateway.turn import Turn, taken_over
from services.gateway.validate import resolve, validate
from services.journal.port import Stored
from services.telemetry import metrics
from services.telemetry.logs import log

BEATS = 12  # in the time of a lease


class Takeover:
    """A gateway is given up when it was seen without a lease at two looks, and only by one that has reached the
    store all through the time of a lease: after the store was away, all leases have lapsed and nobody is gone."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._lease = deps.settings.gateway_lease
        self._reached: float | None = None  # since when the store answers
        self._heard = 0.0  # when it did last
        self._missed: set[str] = set()
        self._strays: set[str] = set()
        self._looks = 0
        self._left = False

    async def watch(self) -> None:
        """Until cancelled, or this gateway has left."""
        while not self._left:
            try:
                await self.look()
            except StoreAway as error:
                self._miss(error)
            await asyncio.sleep(self._lease / BEATS)

    def _miss(self, error: StoreAway) -> None:
        """The store did not answer. One late reply lets no lease lapse: what counts is how long it was away."""
        self._missed = set()
        if self._reached is not None and self._deps.clock.monotonic() - self._heard >= self._lease / 3:
            self._reached = None
            log.warning("store away", why=str(error.__cause__ or error))

    async def leave(self) -> None:
        """Others may take over at once. Raises StoreAway."""
        self._left = True
        await self._deps.journals.beat(self._deps.name, 0)

    @property
    def judges(self) -> bool:
        """Whether it has reached the store for long enough to tell who is gone."""
        return self._reached is not None and self._deps.clock.monotonic() - self._reached >= self._lease

    async def look(self) -> None:
        """One beat, and one look at the others. Raises StoreAway."""
        deps = self._deps
        await deps.journals.beat(deps.name, self._lease)
        lapsed = set(await deps.journals.lapsed()) - {deps.name}
        self._heard = deps.clock.monotonic()
        if self._reached is None:
            self._reached = self._heard
        if self.judges and not deps.admission.closed:
            for gateway in sorted(lapsed & self._missed):
                await self._succeed(gateway)
        self._missed = lapsed
        self._looks += 1
        if self._looks % BEATS == 0 and not deps.admission.closed:
            await self._find_strays()

    async def _find_strays(self) -> None:
        """Turns that are this gateway's by the store's word alone: it took them over and did not hear so, or a
        failover of the store forgot that they had ended. Seen at two looks they go on here."""
        deps, name = self._deps, self._deps.name
        mine = set(await deps.journals.orphans(name))
        strays = {turn for turn in mine if not (deps.turns.runs(turn) or deps.recorder.keeps(turn))}
        for turn in sorted(strays & self._strays):
            await self._take(turn, name)
        self._strays = strays

    async def _succeed(self, gateway: str) -> None:
        turns = list(await self._deps.journals.orphans(gateway))
        random.shuffle(turns)  # several gateways share the work
        taken = [turn for turn in turns if await self._take(turn, gateway)]
        if taken:
            log.warning("turns taken over", gateway=gateway, turns=len(taken))

    async def _take(self, id: str, owner: str) -> bool:
        journals = self._deps.journals
        found = await journals.find(id)
        if found is not None and not self._serves(found):
            return False
        stored = await journals.take(id, owner, self._deps.name)
        if stored is None:
            return False
        try:
            pages = await journals.read(id, stored.record.tenant, 0)
        except ValueError:
            raise Internal("the turn's journal cannot be read") from None
        self._go_on(stored, [entry.event for page in pages for entry in page.entries])
        return True

    def _serves(self, stored: Stored) -> bool:
        try:
            resolve(request_of(unpack(stored.record.request)).model, self._deps.limits())
        except HeadraceError:
            return False
        return True

    def _go_on(self, stored: Stored, events: Sequence[Event]) -> None:
        deps, record = self._deps, stored.record
        turn = self._turn(stored)
        turn.journal.extend(events)
        turn.journal.saved = len(events)
        pipeline.follow(turn, turn.record(deps.name, record.request, record.keep), deps)
        taken_over(turn, events)
        metrics.TAKEOVERS.inc()
        if stored.cancelled:
            turn.fail(Cancelled("the turn was cancelled"))
        deps.turns.start(turn, pipeline.resume(turn, events, deps))
        deps.turns.linger(turn)

    def _turn(self, stored: Stored) -> Turn:
        deps, record = self._deps, stored.record
        kept = unpack(record.request)
        request = request_of(kept)
        asked = Asked(
            tenant_of(kept),
            request,
            validate(request, deps.limits()),
            Life(kept.linger, durable=request.durable),
        )
        now = deps.clock.monotonic()
        return Turn(
            id=record.turn,
            asked=asked,
            clock=deps.clock,
            deadline=Deadline.after(deps.clock, max(0.0, record.seconds)),
            begun=now - max(0.0, deps.clock.now() - kept.wall),
            wall=kept.wall,
            epoch=record.epoch,
            kept=True,
            remembered=kept,
        )
