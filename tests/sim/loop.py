"""An event loop whose time is computed: when nothing is ready, it is the time of the next timer."""

import asyncio
import contextvars
import heapq
from asyncio.events import Handle
from typing import Any

START = 1_800_000_000.0  # seconds since the epoch when the loop's time is 0
MOST_STEPS = 400_000  # callbacks of one run; more is a loop without an end


class Stuck(Exception):
    """Nothing is left to happen, or it does not stop happening."""


class Owner:
    """A process in the simulation: what runs in its context runs, stands still or is gone with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.backlog: list[Handle] | None = None  # what waits while it is frozen, or never comes
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)


WORLD = contextvars.copy_context()
OWNER: contextvars.ContextVar[Owner] = contextvars.ContextVar("owner")


class VirtualLoop(asyncio.BaseEventLoop):
    """Callbacks run in the order in which they became ready, timers in that of their times: no run differs from
    another one with the same seed."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.steps = 0
        self._made = 0
        self._timers: list[tuple[float, int, Any]] = []
        self._ready: Any

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Of two timers for one time the first one comes first, which asyncio's heap does not promise."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, timer))
        return timer

    def freeze(self, owner: Owner) -> None:
        if owner.backlog is None:
            owner.backlog = []

    def thaw(self, owner: Owner) -> None:
        if owner.dead:
            return
        backlog, owner.backlog = owner.backlog or [], None
        self._ready.extend(backlog)

    def _run_once(self) -> None:
        if not self._ready:
            self._advance()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is None or owner.backlog is None:
                handle._run()
            else:
                owner.backlog.append(handle)
            self.steps += 1
        if self.steps > MOST_STEPS:
            raise Stuck(f"{self.steps} callbacks, and no end")

    def _advance(self) -> None:
        while self._timers:
            when, _, timer = heapq.heappop(self._timers)
            if not timer._cancelled:
                self._now = max(self._now, when)
                self._ready.append(timer)
                return
        if not self._stopping:  # type: ignore[attr-defined]
            raise Stuck("nothing is left to happen")

    def _write_to_self(self) -> None: ...

    def _process_events(self, event_list: Any) -> None: ...


class LoopClock:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def now(self) -> float:
        return START + self._loop.time()
