"""Which replicas live: follows the leases and keeps one link to each."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from services.backend.link import Link, LinkState
from services.backend.port import Lease, LeaseSource
from services.core.errors import StoreAway
from services.core.tasks import Tasks

FIRST_RETRY, LAST_RETRY = 0.1, 2.0  # seconds between attempts to connect


@dataclass(slots=True)
class Member:
    link: Link
    task: "asyncio.Task[None]"


@dataclass(slots=True)
class Directory:
    """Polls the leases every `period` seconds. While the store is away, the known replicas stay.

    `on_change(lease, state, reason)` hears every change of a link, for logs and metrics.
    """

    source: LeaseSource
    gateway: str
    token: str
    tasks: Tasks
    on_change: Callable[[Lease, LinkState, str], None]
    period: float = 0.5
    store_away: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _members: dict[str, Member] = field(default_factory=dict)

    def links(self, model: str | None = None) -> list[Link]:
        return [m.link for m in self._members.values() if model is None or m.link.lease.model == model]

    def context_length(self, model: str) -> int | None:
        """Tokens that every live replica of the model can hold; None if there is none."""
        return min((link.context_length for link in self.links(model)), default=None)

    async def settle(self, seconds: float) -> None:
        """Returns when every known replica was tried once, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for link in self.links():
                    await link.tried.wait()

    async def change(self, seconds: float) -> None:
        """Returns when a link goes up or down, at a `stir`, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def stir(self) -> None:
        """Wakes who waits for a change: a replica has room again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.refresh()
            self._ping()
            due = loop.time() + self.period
            await asyncio.sleep(self.period)
            # Who was not heard because this process stood still is asked again before it is judged.
            if loop.time() - due < self.period:
                self._drop_silent()

    async def refresh(self) -> None:
        try:
            leases = await self.source.read()
        except StoreAway:
            self.store_away = True
            return
        self.store_away = False
        self._follow(leases)

    def _follow(self, leases: Sequence[Lease]) -> None:
        live = {lease.replica: lease for lease in leases}
        for name, lease in live.items():
            if name not in self._members:
                self._join(lease)
        for name in [n for n in self._members if n not in live]:
            self._retire(name)

    def _ping(self) -> None:
        for member in self._members.values():
            member.link.ping()

    def _drop_silent(self) -> None:
        for member in self._members.values():
            member.link.drop_if_silent()

    def _note(self, lease: Lease, state: LinkState, reason: str) -> None:
        self.stir()
        self.on_change(lease, state, reason)

    def _join(self, lease: Lease) -> None:
        link = Link(lease, self.gateway, self.token, partial(self._note, lease))
        self._members[lease.replica] = Member(
            link, self.tasks.start(self._keep(link), f"link {lease.replica}")
        )

    def _retire(self, name: str) -> None:
        """Leases tell who is there; the link tells who lives. A live link outlasts its lease, as when Redis
        restarts empty or only the replica is cut off from it; a replica that leaves says so on the link."""
        member = self._members[name]
        if member.link.state in (LinkState.CONNECTING, LinkState.DOWN):
            del self._members[name]
            member.task.cancel()

    async def _keep(self, link: Link) -> None:
        delay = FIRST_RETRY
        while True:
            await link.serve()
            if (task := asyncio.current_task()) is not None and task.cancelling():
                return  # gRPC loses a cancel that meets the end of its stream
            delay = FIRST_RETRY if link.was_up else min(delay * 2, LAST_RETRY)
            await asyncio.sleep(delay)
