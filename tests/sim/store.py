"""One server with all that gateways keep, and the ways to it: late, cut off, frozen, gone, behind, or empty."""

import copy
import random
from collections.abc import Callable
from typing import Any

from services.core.clock import Clock, Ids
from services.core.errors import HeadraceError, StoreAway
from services.journal.memory_store import MemoryJournalStore
from services.sessions.memory import MemorySessionStore
from tests.sim.loop import WORLD, Owner, VirtualLoop

BUDGET = 0.25  # seconds that a call may take
Verb = Callable[..., Any]


class Journals(MemoryJournalStore):
    """`replicated()`: whether a replica has all by now."""

    def __init__(self, clock: Clock, replicated: Callable[[], bool]) -> None:
        super().__init__(clock)
        self._replicated = replicated

    async def confirm(self, turn: str, seq: int) -> bool:
        kept = self._kept(turn)
        return self._replicated() and kept is not None and kept.seq >= seq


class Server:
    """Holds the stores. A call that was sent is executed even if its caller is gone or waits no more."""

    def __init__(self, loop: VirtualLoop, clock: Clock, ids: Ids, rng: random.Random) -> None:
        self._loop, self._clock, self._ids, self._rng = loop, clock, ids, rng
        self.lost = 0.0  # share of calls whose request or reply is lost
        self.latency = 0.001  # seconds, mean of one way
        self.down = False
        self.frozen_until = 0.0
        self.cut: dict[Owner, float] = {}  # until when
        self.on_executing: Callable[[str], None] = lambda verb: None
        self.on_executed: Callable[[Owner, str], None] = lambda owner, verb: None
        self.wiped = False  # something acknowledged was lost
        self._before: dict[str, Any] | None = None
        self.empty()

    def empty(self) -> None:
        self.journals = Journals(self._clock, lambda: self._before is None)
        self.sessions = MemorySessionStore(self._clock, self._ids)

    def falls_behind(self) -> None:
        """From here on the replica gets nothing."""
        self._before = copy.deepcopy(self._state)

    def fails_over(self) -> None:
        """The replica takes over."""
        if self._before is not None:
            self.wiped = True
            for store, state in ((self.journals, "journals"), (self.sessions, "sessions")):
                vars(store).update(self._before[state])
            self._before = None

    @property
    def _state(self) -> dict[str, Any]:
        journals, sessions = vars(self.journals), vars(self.sessions)
        return {
            "journals": {name: journals[name] for name in ("_turns", "_claims", "_gateways")},
            "sessions": {name: sessions[name] for name in sessions if name not in ("_clock", "_ids")},
        }

    async def call(self, owner: Owner, store: str, verb: str, args: Any, named: Any) -> Any:
        """Raises StoreAway after the budget, whether or not it happened."""
        loop, rng = self._loop, self._rng
        answer = loop.create_future()
        timer = loop.call_later(BUDGET, _expire, answer)
        lost = rng.random() < self.lost
        on_the_way = lost and rng.random() < 0.5
        if self.down:
            loop.call_later(0.001, _expire, answer)
        elif not on_the_way and not self._is_cut(owner):
            job = (owner, store, verb, args, named, None if lost else answer)
            loop.call_later(self._delay(), self._arrive, job, context=WORLD)
        try:
            return await answer
        finally:
            timer.cancel()

    def _arrive(self, job: Any) -> None:
        if self.frozen_until > self._loop.time():
            self._loop.call_at(self.frozen_until, self._arrive, job, context=WORLD)
        elif not self.down:
            self._execute(*job)

    def _execute(self, owner: Owner, store: str, verb: str, args: Any, named: Any, answer: Any) -> None:
        result, error = None, None
        self.on_executing(_name(store, verb))
        try:
            getattr(getattr(self, store), verb)(*args, **named).send(None)
        except StopIteration as done:
            result = done.value
        except HeadraceError as refused:
            error = refused
        self.on_executed(owner, _name(store, verb))
        if answer is not None and not self._is_cut(owner):
            self._loop.call_later(self._delay(), _tell, answer, result, error, context=WORLD)

    def _delay(self) -> float:
        return self._rng.expovariate(1 / self.latency)

    def _is_cut(self, owner: Owner) -> bool:
        return self.cut.get(owner, 0.0) > self._loop.time()


def _name(store: str, verb: str) -> str:
    return verb if store == "journals" else f"{store}.{verb}"


def _expire(answer: Any) -> None:
    if not answer.done():
        answer.set_exception(StoreAway("the store does not answer"))


def _tell(answer: Any, result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class Way:
    """One gateway's way to one of the stores."""

    def __init__(self, server: Server, owner: Owner, store: str) -> None:
        self._server, self._owner, self._store = server, owner, store

    def __getattr__(self, verb: str) -> Verb:
        server, owner, store = self._server, self._owner, self._store

        async def call(*args: Any, **named: Any) -> Any:
            return await server.call(owner, store, verb, args, named)

        self.__dict__[verb] = call
        return call
