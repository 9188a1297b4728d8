"""Whatever happens to sessions, and in whatever order: what was acknowledged is there, once and in its place.

A model that knows only what was acknowledged walks beside each adapter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from services.core.errors import Conflict, HeadraceError, InvalidRequest, NotFound
from services.core.request import Message, Role
from services.store.connect import connect
from tests.contract.stores import MASTER, Stores, memory_stores, redis_stores
from tests.support.valkey import Valkey

T = TypeVar("T")
TTL, LEASE = 100_000.0, 1000.0  # so long that a slow server takes none of it away unseen
WRITERS = [f"turn_w{n}" for n in range(3)]


@dataclass(slots=True)
class Known:
    """What is known of a session: of each version the turn that made it, and how many messages it added."""

    turns: list[tuple[str, tuple[Message, ...]]]
    versions: dict[str, int] = field(default_factory=dict)
    writer: str = ""
    until: float = 0.0
    deleted: bool = False

    @property
    def version(self) -> int:
        return len(self.turns)

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(message for _, said in self.turns for message in said)


class Sessions(RuleBasedStateMachine):
    ids = Bundle("ids")
    make: Callable[[], tuple[Stores, Callable[[], Awaitable[None]]]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stores, self.close = self.runner.run(self._made())
        self.known: dict[str, Known] = {}
        self.touched = ""
        self.count = 0

    async def _made(self) -> tuple[Stores, Callable[[], Awaitable[None]]]:
        return type(self).make()

    def teardown(self) -> None:
        for id in self.known:
            self.check(id)
        listed = self.run(self.stores.sessions.list("acme", 100)).sessions
        assert {session.id for session in listed} == {id for id, k in self.known.items() if not k.deleted}
        self.runner.run(self._closed())
        self.runner.close()

    async def _closed(self) -> None:
        await self.close()

    def run(self, call: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await call

        return self.runner.run(awaited())

    def refused(self, call: Awaitable[object], kind: type[HeadraceError]) -> None:
        try:
            self.run(call)
        except kind:
            return
        raise AssertionError(f"not refused as {kind.__name__}")

    def new(self, count: int) -> tuple[str, tuple[Message, ...]]:
        self.count += 1
        return f"turn_{self.count}", tuple(Message(Role.USER, f"{self.count}.{n}") for n in range(count))

    @rule(target=ids, count=st.integers(0, 3))
    def create(self, count: int) -> str:
        _, said = self.new(count)
        id = self.run(self.stores.sessions.create("acme", said, TTL)).id
        self.known[id] = Known([("", said)])
        self.touched = id
        return id

    @rule(
        id=ids,
        off=st.sampled_from([0, 0, 0, 1, -1]),
        count=st.integers(1, 3),
        writer=st.sampled_from(["", "", *WRITERS]),
    )
    def append(self, id: str, off: int, count: int, writer: str) -> None:
        known, (turn, said) = self.known[id], self.new(count)
        turn = writer or turn
        call = self.stores.sessions.append("acme", id, known.version + off, said, operation=turn)
        self.touched = id
        if known.deleted:
            self.refused(call, NotFound)
        elif turn in known.versions:
            assert self.run(call) == known.versions[turn]
        elif off or (self.holder(known) and self.holder(known) != turn):
            self.refused(call, Conflict)
        else:
            assert self.run(call) == known.version + 1
            self.add(known, turn, said)

    @rule(id=ids, which=st.integers(0, 50), off=st.integers(-3, 3))
    def repeat(self, id: str, which: int, off: int) -> None:
        """As after a lost reply, at once or long after, whatever version the caller believes in."""
        known = self.known[id]
        if not known.versions or known.deleted:
            return
        turn = sorted(known.versions)[which % len(known.versions)]
        said = (Message(Role.USER, "again"),)
        call = self.stores.sessions.append("acme", id, known.version + off, said, operation=turn)
        assert self.run(call) == known.versions[turn]
        self.touched = id

    @rule(id=ids, many=st.integers(2, 4))
    def race(self, id: str, many: int) -> None:
        known = self.known[id]
        if known.deleted or self.holder(known):
            return
        offers = [self.new(1) for _ in range(many)]

        async def all_at_once() -> list[int | BaseException]:
            appends = (
                self.stores.sessions.append("acme", id, known.version, said, operation=turn)
                for turn, said in offers
            )
            return await asyncio.gather(*appends, return_exceptions=True)

        results = self.runner.run(all_at_once())
        [won] = [i for i, result in enumerate(results) if result == known.version + 1]
        assert all(isinstance(result, Conflict) for i, result in enumerate(results) if i != won)
        self.add(known, *offers[won])
        self.touched = id

    @rule(target=ids, id=ids, at=st.integers(0, 12))
    def fork(self, id: str, at: int) -> str:
        known = self.known[id]
        call = self.stores.sessions.fork("acme", id, at)
        if known.deleted or at > known.version:
            self.refused(call, NotFound if known.deleted else InvalidRequest)
            return id
        forked = self.run(call)
        self.known[forked.id] = Known(known.turns[: at or known.version])
        self.touched = forked.id
        return forked.id

    @rule(id=ids, turn=st.sampled_from(WRITERS))
    def acquire(self, id: str, turn: str) -> None:
        known = self.known[id]
        call = self.stores.sessions.acquire("acme", id, turn, LEASE)
        if known.deleted:
            self.refused(call, NotFound)
            return
        holder = self.holder(known) or turn
        assert self.run(call) == holder
        if holder == turn:
            known.writer, known.until = turn, self.stores.clock.now() + LEASE

    @rule(id=ids, turn=st.sampled_from(WRITERS))
    def release(self, id: str, turn: str) -> None:
        self.run(self.stores.sessions.release("acme", id, turn))
        if self.known[id].writer == turn:
            self.known[id].writer = ""

    @rule(seconds=st.sampled_from([400.0, 1001.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(self.stores.pass_time(seconds))

    @rule(id=consumes(ids))
    def delete(self, id: str) -> None:
        call = self.stores.sessions.delete("acme", id)
        if self.known[id].deleted:
            self.refused(call, NotFound)
        else:
            self.run(call)
        self.known[id].deleted = True
        self.touched = id

    @invariant()
    def what_was_touched_is_as_it_should_be(self) -> None:
        if self.touched:
            self.check(self.touched)

    def check(self, id: str) -> None:
        known = self.known[id]
        if known.deleted:
            self.refused(self.stores.sessions.get("acme", id), NotFound)
            return
        session = self.run(self.stores.sessions.get("acme", id))
        assert session.version == known.version and session.messages == known.messages
        assert [turn.id for turn in session.turns] == [turn for turn, _ in known.turns]
        for turn, (_, said) in zip(session.turns, known.turns, strict=True):
            assert session.messages[turn.first : turn.first + turn.count] == said

    def add(self, known: Known, turn: str, said: tuple[Message, ...]) -> None:
        known.turns = [*known.turns, (turn, said)]
        known.versions[turn] = known.version

    def holder(self, known: Known) -> str:
        return known.writer if known.until > self.stores.clock.now() else ""


def walk(make: Callable[[], tuple[Stores, Callable[[], Awaitable[None]]]], examples: int) -> None:
    class Walked(Sessions):
        pass

    Walked.make = staticmethod(make)
    run_state_machine_as_test(
        Walked,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_turn_is_lost_or_doubled_in_memory() -> None:
    async def close() -> None:
        pass

    walk(lambda: (memory_stores(), close), 200)


def test_no_turn_is_lost_or_doubled_in_redis(valkey_server: Valkey) -> None:
    def make() -> tuple[Stores, Callable[[], Awaitable[None]]]:
        client = connect(valkey_server.url, timeout=2.0)

        async def close() -> None:
            await client.flushall()
            await client.aclose()

        return redis_stores(client, master=MASTER), close

    walk(make, 40)
