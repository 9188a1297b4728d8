"""Replicas, and a gateway's links to them: they step, die, hang, drain and come back."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from services.backend.link import LinkState
from services.backend.port import Cause, Lease, Load, Order, Sink
from tests.sim.loop import WORLD, Owner, VirtualLoop
from tests.sim.model import CONTEXT, NAME, STOP_ID, after, drawn, state_of

WIRE = 0.002  # seconds from end to end of a link; the same for all, so that nothing overtakes
SILENT = 3.0  # seconds after which a gateway gives a silent replica up
GRACE = 0.3  # seconds that a replica's orders have when it drains

Told = tuple[int, tuple[int, ...], Cause | None]  # order, its tokens, and how it ended


@dataclass(slots=True)
class Running:
    order: Order
    state: int
    left: int


class Replica:
    def __init__(self, name: str, loop: VirtualLoop, step: float, capacity: int) -> None:
        self.lease = Lease(name, "", NAME, "", 1, capacity, "sim", CONTEXT)
        self._loop = loop
        self._step = step
        self._links: list[SimLink] = []
        self.orders: dict[tuple[SimLink, int], Running] = {}
        self.up, self.hung, self.draining = True, False, False
        self._stepping = False
        self._burst = 0

    def connect(self, link: "SimLink") -> None:
        self._links.append(link)

    def forget(self, owner: Owner) -> None:
        """The gateway is gone, and with it its links."""
        self._links = [link for link in self._links if link.owner is not owner]
        for key in [key for key in self.orders if key[0].owner is owner]:
            del self.orders[key]

    def submit(self, link: "SimLink", id: int, order: Order, connection: int) -> None:
        if not self.up or link.connections != connection or link.owner.dead:
            return
        if self.draining or len(self.orders) >= self.lease.capacity:
            link.hear([(id, (), Cause.DRAINING if self.draining else Cause.FULL)])
            return
        self.orders[link, id] = Running(order, state_of(order.prompt), order.max_tokens)
        self._wake()

    def cancel(self, link: "SimLink", id: int) -> None:
        self.orders.pop((link, id), None)

    def die(self) -> None:
        self.up, self.hung = False, False
        self._break()

    def come_back(self) -> None:
        self.up, self.hung, self.draining = True, False, False
        for link in self._links:
            link.says(LinkState.UP)

    def hang(self, seconds: float) -> None:
        self.hung = True
        if seconds >= SILENT:
            self._loop.call_later(SILENT, self._given_up, context=WORLD)

    def drain(self) -> None:
        self.draining = True
        for link in self._links:
            link.says(LinkState.DRAINING)
        self._loop.call_later(GRACE, self._end_all, Cause.DRAINING, context=WORLD)

    def fail_one(self) -> None:
        """The engine ends one of its orders."""
        for (link, id), _ in list(self.orders.items())[:1]:
            del self.orders[link, id]
            link.hear([(id, (), Cause.ENGINE)])

    def _given_up(self) -> None:
        if self.hung:
            self._break()

    def _break(self) -> None:
        self.orders.clear()
        for link in self._links:
            link.breaks()

    def _end_all(self, cause: Cause) -> None:
        if self.draining:
            for link, id in list(self.orders):
                link.hear([(id, (), cause)])
            self.orders.clear()

    def _wake(self) -> None:
        if not self._stepping:
            self._stepping = True
            self._loop.call_later(self._step, self._work, context=WORLD)

    def _work(self) -> None:
        self._stepping = False
        if self.up and not self.hung:
            self._burst += 1
            told: dict[SimLink, list[Told]] = {}
            for (link, id), running in list(self.orders.items()):
                tokens, cause = self._next(running, 1 + self._burst % 2)
                if cause is not None:
                    del self.orders[link, id]
                told.setdefault(link, []).append((id, tokens, cause))
            for link, news in told.items():
                link.hear(news)
        if self.orders:
            self._wake()

    def _next(self, running: Running, count: int) -> tuple[tuple[int, ...], Cause | None]:
        tokens: list[int] = []
        for _ in range(min(count, running.left)):
            if (id := drawn(running.state, running.order.sampling.seed or 0)) == STOP_ID:
                return tuple(tokens), Cause.STOP
            tokens.append(id)
            running.state = after(running.state, id)
        running.left -= len(tokens)
        return tuple(tokens), None if running.left else Cause.LENGTH


class SimLink:
    """One gateway's link: what it hears, it hears in its own process."""

    def __init__(self, replica: Replica, owner: Owner, loop: VirtualLoop, changed: Any) -> None:
        self.lease = replica.lease
        self.owner = owner
        self.connections = 1
        self.state = LinkState.UP if replica.up and not replica.draining else LinkState.DOWN
        self.load = Load(capacity=replica.lease.capacity)
        self.capacity = replica.lease.capacity
        self.context_length, self.engine, self.kv_use = CONTEXT, "sim", 0.0
        self.name, self.queued_tokens, self.pace = replica.lease.replica, 0, 0.0
        self.up_at, self.asked_at = loop.time(), math.inf
        self._replica, self._loop, self._changed = replica, loop, changed
        self._sinks: dict[int, Sink] = {}
        self._last = 0
        replica.connect(self)

    @property
    def ready(self) -> bool:
        return self.state is LinkState.UP

    @property
    def turns(self) -> int:
        return len(self._sinks)

    @property
    def open(self) -> int:
        return len(self._sinks)

    def submit(self, order: Order, sink: Sink) -> int:
        self._last += 1
        self._sinks[self._last] = sink
        self._send(self._replica.submit, self, self._last, order, self.connections)
        return self._last

    def cancel(self, order_id: int) -> None:
        if self._sinks.pop(order_id, None) is not None:
            self._send(self._replica.cancel, self, order_id)

    def hear(self, news: list[Told]) -> None:
        self._tell(self._news, news)

    def says(self, state: LinkState) -> None:
        self._tell(self._set, state)

    def breaks(self) -> None:
        self._tell(self._lose)

    def _send(self, what: Any, *args: Any) -> None:
        self._loop.call_later(WIRE, what, *args, context=WORLD)

    def _tell(self, what: Any, *args: Any) -> None:
        self._loop.call_later(WIRE, what, *args, context=self.owner.context)

    def _news(self, news: list[Told]) -> None:
        for id, tokens, cause in news:
            if tokens and (sink := self._sinks.get(id)) is not None:
                sink.tokens(tokens)
            if cause is not None and (sink := self._sinks.pop(id, None)) is not None:
                sink.ended(cause, "", STOP_ID)

    def _set(self, state: LinkState) -> None:
        if state is LinkState.UP and self.state is not LinkState.UP:
            if self.state is LinkState.DRAINING:
                self._lose()
            self.connections += 1
            self.up_at = self._loop.time()
        self.state = state
        self._changed()

    def _lose(self) -> None:
        self.state = LinkState.DOWN
        self._changed()
        lost, self._sinks = self._sinks, {}
        for sink in lost.values():
            sink.ended(Cause.LOST, "the link to the replica broke", 0)


class SimDirectory:
    store_away = False

    def __init__(self, replicas: Iterable[Replica], owner: Owner, loop: VirtualLoop) -> None:
        self._links = [SimLink(replica, owner, loop, self._note) for replica in replicas]
        self._loop = loop
        self._changed = asyncio.Event()

    def links(self, model: str | None = None) -> list[SimLink]:
        return self._links

    def context_length(self, model: str) -> int:
        return CONTEXT

    async def change(self, seconds: float) -> None:
        waiting = self._changed
        timer = self._loop.call_later(seconds, waiting.set)
        try:
            await waiting.wait()
        finally:
            timer.cancel()
            if waiting is self._changed:
                self._changed = asyncio.Event()

    def _note(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
