"""The one writer of a session, on every adapter: it holds the session, renews the hold, and lets go."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from services.core.clock import Deadline, SystemClock
from services.core.errors import Conflict, DeadlineExceeded, StoreAway
from services.sessions.writing import Hold, writing
from tests.contract.stores import Stores
from tests.contract.test_session_turns import SAID, talked
from tests.support.gateway import until


def no_repeat(work: Any, name: str) -> None:
    work.close()
    raise AssertionError(f"the store heard all of it: {name}")


def held(
    stores: Stores,
    id: str,
    turn: str,
    *,
    queue: bool = False,
    seconds: float | None = None,
    later: Any = no_repeat,
    **about: Any,
) -> Any:
    clock = SystemClock()
    deadline = Deadline.after(clock, seconds)
    hold = Hold(stores.sessions, "acme", id, turn, **about)
    return writing(hold, queue=queue, clock=clock, deadline=deadline, later=later)


async def test_writing_refuses_a_second_turn_and_lets_go_at_the_end(stores: Stores) -> None:
    id = await talked(stores, 0)
    async with held(stores, id, "turn_a"):
        with pytest.raises(Conflict, match="another turn"):
            async with held(stores, id, "turn_b"):
                raise AssertionError("two turns write")
        async with held(stores, id, "turn_a"):
            pass  # a turn that was taken over has its id, and so the session
    async with held(stores, id, "turn_b"):
        pass


async def test_a_turn_that_goes_on_elsewhere_keeps_the_session(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, repeats = await talked(stores, 0), Repeats()
    async with held(stores, id, "turn_a", elsewhere=lambda: True, settled=lambda: False, later=repeats):
        pass
    monkeypatch.setattr("services.sessions.writing.AGAIN", (0.0, 0.0))
    await repeats.run()
    with pytest.raises(Conflict):
        async with held(stores, id, "turn_b"):
            raise AssertionError("two turns write")
    async with held(stores, id, "turn_a"):
        pass
    async with held(stores, id, "turn_b"):
        pass


async def test_turns_that_queue_write_one_after_another(stores: Stores) -> None:
    id, order, inside = await talked(stores, 0), list[str](), 0

    async def work(turn: str) -> None:
        nonlocal inside
        async with held(stores, id, turn, queue=True, seconds=30.0):
            inside += 1
            assert inside == 1
            version = (await stores.sessions.get("acme", id)).version
            await stores.sessions.append("acme", id, version, SAID[0], operation=turn)
            order.append(turn)
            inside -= 1

    await asyncio.gather(*(work(f"turn_{n}") for n in range(6)))
    session = await stores.sessions.get("acme", id)
    assert [turn.id for turn in session.turns[1:]] == order and sorted(order) == [
        f"turn_{n}" for n in range(6)
    ]


async def test_a_turn_that_queues_waits_no_longer_than_its_deadline(stores: Stores) -> None:
    id = await talked(stores, 0)
    async with held(stores, id, "turn_a"):
        with pytest.raises(DeadlineExceeded):
            async with held(stores, id, "turn_b", queue=True, seconds=0.05):
                raise AssertionError("two turns write")
    assert await stores.sessions.acquire("acme", id, "turn_c", 9.0) == "turn_c"  # nobody waits any more


async def test_a_turn_that_fails_or_is_cancelled_lets_go(stores: Stores) -> None:
    id, begun = await talked(stores, 0), asyncio.Event()
    with pytest.raises(ZeroDivisionError):
        async with held(stores, id, "turn_a"):
            raise ZeroDivisionError

    async def forever() -> None:
        async with held(stores, id, "turn_b"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(forever())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert await stores.sessions.acquire("acme", id, "turn_c", 9.0) == "turn_c"


async def test_a_turn_that_writes_long_renews_its_lease(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.sessions.writing.RENEW", 0.01)
    id, seen = await talked(stores, 0), Watched(stores.sessions)
    async with held(replace(stores, sessions=seen), id, "turn_a"):
        for _ in range(3):
            await stores.pass_time(12.0)
            before = seen.acquired
            await until(lambda before=before: seen.acquired > before + 1)
        await stores.pass_time(12.0)
        assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_a"
    assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_b"


@pytest.mark.parametrize("lost", [("acquire", "release"), ("release",), ("release", "release", "release")])
async def test_a_session_whose_release_was_lost_is_let_go_once_the_store_hears(
    stores: Stores, lost: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.sessions.writing.AGAIN", (0.0,) * 4)
    id, repeats = await talked(stores, 0), Repeats()
    with suppress(StoreAway):
        async with held(replace(stores, sessions=Lossy(stores.sessions, lost)), id, "turn_a", later=repeats):
            pass
    assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_a"
    await repeats.run()
    assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_b"


@pytest.mark.parametrize("renewals", [0, 1])
async def test_a_hold_that_reaches_the_store_after_its_release_is_let_go(
    stores: Stores, renewals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.sessions.writing.AGAIN", (0.0,))
    monkeypatch.setattr("services.sessions.writing.RENEW", 0.01)
    id, repeats = await talked(stores, 0), Repeats()
    late = Late(stores.sessions, on_time=renewals)
    with suppress(StoreAway):
        async with held(replace(stores, sessions=late), id, "turn_a", later=repeats):
            await until(lambda: late.calls > renewals)
    assert await stores.sessions.acquire("acme", id, "turn_a", 9.0) == "turn_a"  # the call, late
    await repeats.run()
    assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_b"


async def test_a_turn_that_is_cancelled_twice_lets_go(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.sessions.writing.AGAIN", (0.0,))
    id, repeats, slow = await talked(stores, 0), Repeats(), Slow(stores.sessions)

    async def forever() -> None:
        async with held(replace(stores, sessions=slow), id, "turn_a", later=repeats):
            slow.begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(forever())
    for _ in range(2):  # as it works, and as it lets go
        await slow.begun.wait()
        slow.begun.clear()
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() and await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_a"
    await repeats.run()
    assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_b"


async def test_a_session_is_let_go_only_when_nobody_can_take_its_turn_over(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.sessions.writing.AGAIN", (0.0,) * 3)
    id, repeats, asked = await talked(stores, 0), Repeats(), iter((None, True))
    async with held(stores, id, "turn_a", elsewhere=lambda: True, settled=lambda: next(asked), later=repeats):
        pass
    await repeats.run()
    assert list(asked) == []
    assert await stores.sessions.acquire("acme", id, "turn_b", 9.0) == "turn_b"


class Repeats:
    """What the end of a turn left to the background."""

    def __init__(self) -> None:
        self.work: list[Any] = []

    def __call__(self, work: Any, name: str) -> None:
        self.work.append(work)

    async def run(self) -> None:
        [work] = self.work
        await work


class Lossy:
    """Executes acquire, loses its reply; loses release before it is executed: each once for its name in `lost`."""

    def __init__(self, sessions: Any, lost: Sequence[str]) -> None:
        self._sessions, self._lost = sessions, list(lost)

    async def acquire(self, *args: Any, **kwargs: Any) -> Any:
        holder = await self._sessions.acquire(*args, **kwargs)
        self._lose("acquire")
        return holder

    async def release(self, *args: Any) -> None:
        self._lose("release")
        await self._sessions.release(*args)

    def _lose(self, call: str) -> None:
        if call in self._lost:
            self._lost.remove(call)
            raise StoreAway("lost")


class Late:
    """Answers no acquire after so many; they do not reach the store yet."""

    def __init__(self, sessions: Any, on_time: int) -> None:
        self.release, self._acquire, self._on_time, self.calls = (
            sessions.release,
            sessions.acquire,
            on_time,
            0,
        )

    async def acquire(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls > self._on_time:
            raise StoreAway("late")
        return await self._acquire(*args, **kwargs)


class Slow:
    """The first release is slow."""

    def __init__(self, sessions: Any) -> None:
        self.acquire, self._release, self.begun, self._slow = (
            sessions.acquire,
            sessions.release,
            asyncio.Event(),
            True,
        )

    async def release(self, *args: Any) -> None:
        self.begun.set()
        if self._slow:
            self._slow = False
            await asyncio.Event().wait()
        await self._release(*args)


class Watched:
    """Counts what a writer asks of the store."""

    def __init__(self, sessions: Any) -> None:
        self.release, self._acquire, self.acquired = sessions.release, sessions.acquire, 0

    async def acquire(self, *args: Any, **kwargs: Any) -> Any:
        holder = await self._acquire(*args, **kwargs)
        self.acquired += 1
        return holder
