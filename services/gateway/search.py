"""The search of one order for a replica: at once, or after a while in the waiting room."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from services.backend.directory import Directory
from services.backend.link import Link
from services.core.errors import Full, HeadraceError, NoReplica
from services.core.events import Waiting, WaitReason
from services.gateway.turn import Turn
from services.gateway.waiting import Place, WaitingRoom
from services.routing.load import has_room
from services.routing.router import Router, Wish
from services.telemetry import metrics

LOOK = 0.25  # seconds between two looks for a replica while nothing changes
TELL = 5.0  # seconds between two words to a caller who waits

Connection = tuple[str, int]  # a replica, and which of the connections to it


@dataclass(slots=True)
class Search:
    """`hold`: seconds that an order which has not begun waits for room; 0 waits for nothing."""

    model: str
    directory: Directory
    router: Router
    wish: Wish
    room: WaitingRoom
    hold: float
    turn: Turn
    choice: int
    _since: float | None = None  # times are of the event loop's clock
    _told: float = float("-inf")
    _number: int = 0
    _crowded: bool = False

    async def link(self, tried: Collection[Connection], until: float) -> Link | None:
        """The replica for the order, of those not tried on this connection; None if there is none in time. An
        answer that has begun goes before the queue, and has time `until` then; for the others `until` is 0."""
        with self.turn.trace.child("route"):
            return await self._found(tried, until)

    async def _found(self, tried: Collection[Connection], until: float) -> Link | None:
        if until or not self.hold:
            return await self._until(tried, until)
        if not self.room.held(self.model) and (link := self._choose(tried)) is not None:
            return link
        # What others may go to, and this one may not any more, is not worth its waiting, nor theirs behind it.
        if self._room_elsewhere(tried) or not self._admitted():
            return None
        with self.room.place(self.model, self.turn.tenant.id, self._number) as place:
            found = await self._in_queue(place, tried)
            place.served = found is not None
            return found

    @property
    def patient(self) -> bool:
        """Whether the order may wait on. Its time begins with the first call."""
        return self.hold > 0 and self._left > 0

    def refusal(self) -> HeadraceError:
        """Why there is no replica for it."""
        limit = f", and this gateway holds its limit of {self.room.most} turns" if self._crowded else ""
        waited = f" after {self.hold:g} s" if self._since is not None and not limit else ""
        if self._reason is WaitReason.FULL:
            return Full(f"every replica of {self.model} is at its capacity{waited}{limit}")
        return NoReplica(f"no replica of {self.model} is connected{waited}{limit}")

    async def _until(self, tried: Collection[Connection], until: float) -> Link | None:
        while (link := self._choose(tried)) is None and (left := until - self._now) > 0:
            await self.directory.change(min(LOOK, left))
        return link

    async def _in_queue(self, place: Place, tried: Collection[Connection]) -> Link | None:
        while (left := self._left) > 0:
            first = place.first.is_set()
            if first and ((link := self._choose(tried)) is not None or self._room_elsewhere(tried)):
                return link
            self._tell(place)
            if first:
                await self.directory.change(min(LOOK, left))
            else:
                await place.called(min(left, self._told + TELL - self._now))
        return None

    def _choose(self, tried: Collection[Connection]) -> Link | None:
        links = [link for link in self.directory.links(self.model) if connection(link) not in tried]
        choice = self.router.choose(links, self.wish, self._now)
        if choice is None:
            return None
        metrics.ROUTES.labels(self.model, choice.reason).inc()
        return choice.replica

    def _room_elsewhere(self, tried: Collection[Connection]) -> bool:
        links = self.directory.links(self.model)
        return any(connection(link) in tried and has_room(link, self._now) for link in links)

    def _admitted(self) -> bool:
        """A turn that another gateway has held is held here whatever the limits."""
        if not self._number:
            self._crowded = not (self.turn.takeovers or self.room.admits(self.turn.tenant.id))
            self._number = self.room.number()
        return not self._crowded

    def _tell(self, place: Place) -> None:
        if (now := self._now) - self._told < TELL:
            return
        self._told = now
        held = round((self.hold - self._left) * 1000)
        position = self.room.position(self.model, place)
        self.turn.append(Waiting(self._reason, held, position, self.choice))

    @property
    def _left(self) -> float:
        if self._since is None:
            self._since = self._now
        return self._since + self.hold - self._now

    @property
    def _reason(self) -> WaitReason:
        ready = any(link.ready for link in self.directory.links(self.model))
        return WaitReason.FULL if ready else WaitReason.NO_REPLICA

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def connection(link: Link) -> Connection:
    return link.lease.replica, link.connections
