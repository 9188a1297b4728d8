"""Says that this gateway lives, and goes on with the turns of gateways that do not."""

import asyncio
import random
from collections.abc import Sequence

from services.core.clock import Deadline
from services.core.errors import Cancelled, DeadlineExceeded, HeadraceError, StoreAway
from services.core.events import Event, Failed, TakenOver
from services.gateway import pipeline
from services.gateway.asked import Asked, Life, claim_of, request_of, tenant_of, unpack
from services.gateway.deps import Deps
from services.gateway.sample import together
from services.gateway.turn import Turn, taken_over
from services.gateway.validate import validate
from services.journal.port import Batch, Stored
from services.telemetry import metrics
from services.telemetry.logs import log

BEATS = 12  # in the time of a lease
AT_ONCE = 8  # turns taken over
AGAIN = 60.0  # seconds until another look at a turn that cannot be read


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
        self._refused: dict[str, float] = {}  # turns, and when to look at them again
        self._beaten = float("-inf")
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
            log.warning("store away", why=str(error.__cause__ or "") or error.message)

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
        await self._beat()
        lapsed = set(await deps.journals.lapsed()) - {deps.name}
        self._heard = deps.clock.monotonic()
        if self._reached is None:
            self._reached = self._heard
        if self.judges and not deps.admission.closed:
            for gateway in sorted(lapsed & self._missed):
                await self._succeed(gateway)
        self._missed = lapsed
        self._refused = {id: until for id, until in self._refused.items() if until > self._heard}
        self._looks += 1
        if self._looks % BEATS == 0 and not deps.admission.closed:
            await self._find_strays()

    async def _beat(self) -> None:
        self._beaten = self._deps.clock.monotonic()
        await self._deps.journals.beat(self._deps.name, self._lease)

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
        turns = [turn for turn in await self._deps.journals.orphans(gateway) if turn not in self._refused]
        random.shuffle(turns)  # several gateways share the work
        taken = 0
        for at in range(0, len(turns), AT_ONCE):
            if self._deps.admission.closed:
                break
            # Very many turns take longer than a lease: this gateway's own must not lapse over them.
            if self._deps.clock.monotonic() - self._beaten >= self._lease / BEATS:
                await self._beat()
            taken += sum(await together(self._take(turn, gateway) for turn in turns[at : at + AT_ONCE]))
        if taken:
            log.warning("turns taken over", gateway=gateway, turns=taken)

    async def _take(self, id: str, owner: str) -> bool:
        """Whether it goes on, or ends, here. One that this gateway cannot read, or would refuse, is left until its
        deadline: another may have the key, the version or the model that it takes. Raises StoreAway."""
        left = AGAIN
        try:
            found = await self._deps.journals.find(id)
            if found is not None and found.record.seconds <= 0:
                return await self._end(found, owner)
            left = left if found is None else found.record.seconds
            return await self._go_on_with(id, owner, found)
        except StoreAway:
            raise
        except (HeadraceError, ValueError) as error:
            log.warning("turn left to others", turn=id, gateway=owner, reason=type(error).__name__)
            self._refused[id] = self._deps.clock.monotonic() + left
            return False

    async def _end(self, found: Stored, owner: str) -> bool:
        """Its deadline has passed: it is told so, whoever could have served it."""
        journals, id = self._deps.journals, found.record.turn
        stored = await journals.take(id, owner, self._deps.name, found.record.epoch + 1)
        if stored is None:
            return False
        record, first = stored.record, stored.seq + 1
        ending: list[Event] = [
            TakenOver(record.epoch),
            Failed(DeadlineExceeded("the turn's deadline passed")),
        ]
        await journals.append([Batch(id, record.tenant, record.epoch, first, ending, True, record.keep)])
        return True

    async def _go_on_with(self, id: str, owner: str, found: Stored | None) -> bool:
        """Reads all of it before it takes it: what cannot be read stays whose it is. Raises ValueError too."""
        journals = self._deps.journals
        turn = None if found is None or found.ended else self._turn(found)
        past = [] if turn is None else await self._past(turn, 0)
        least = 0 if turn is None else self._epoch(turn)
        stored = await journals.take(id, owner, self._deps.name, least)
        if stored is None or turn is None:
            return False
        past += await self._past(turn, len(past))
        self._go_on(turn, stored, past)
        return True

    def _epoch(self, turn: Turn) -> int:
        """Milliseconds of the turn's life, so that no takeover has the epoch of one that the store has forgotten."""
        return round((self._deps.clock.now() - turn.wall) * 1000)

    async def _past(self, turn: Turn, after: int) -> list[Event]:
        pages = await self._deps.journals.read(turn.id, turn.tenant.id, after)
        return [entry.event for page in pages for entry in page.entries]

    def _go_on(self, turn: Turn, stored: Stored, events: Sequence[Event]) -> None:
        deps, record = self._deps, stored.record
        turn.epoch = record.epoch
        turn.journal.extend(events)
        turn.journal.saved = len(events)
        pipeline.follow(turn, turn.record(deps.name, record.request, record.keep), deps)
        before = "" if turn.remembered is None else turn.remembered.trace
        turn.trace = deps.tracing.begin("turn", link=before, turn=turn.id, gen_ai__request__model=turn.model)
        taken_over(turn, events)
        turn.trace.event("takeover", epoch=turn.epoch)
        metrics.TAKEOVERS.inc()
        if stored.cancelled:
            turn.fail(Cancelled("the turn was cancelled"))
        deps.turns.start(turn, pipeline.resume(turn, events, deps))
        deps.turns.linger(turn)

    def _turn(self, stored: Stored) -> Turn:
        """Raises InvalidRequest, ValueError."""
        deps, record = self._deps, stored.record
        kept = unpack(record.request)
        request = request_of(kept)
        claim = claim_of(request)
        asked = Asked(
            tenant_of(kept),
            request,
            validate(request, deps.limits()),
            Life(kept.linger, durable=request.durable, claim=claim),
        )
        now = deps.clock.monotonic()
        return Turn(
            id=record.turn,
            asked=asked,
            clock=deps.clock,
            deadline=Deadline.after(deps.clock, max(0.0, record.seconds)),
            begun=now - max(0.0, deps.clock.now() - kept.wall),
            wall=kept.wall,
            kept=True,
            claim=claim,
            remembered=kept,
            label=deps.tenants.of(asked.tenant.id),
        )
