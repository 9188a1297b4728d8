"""A turn, whatever happens to it in whatever order: one ending, the same events for all, and nothing held twice."""

import asyncio
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.core.errors import Cancelled, EngineLost, HeadraceError
from services.core.events import Delta, Ending, Event, Failed, Finished, FinishReason
from services.core.tasks import Tasks
from services.gateway.turn import Turn
from services.gateway.turns import Turns
from services.journal.memory import Left, MemoryJournal
from services.journal.port import Verdict
from tests.sim.loop import LoopClock, VirtualLoop
from tests.support.turns import new_turn

LINGER = 10.0  # seconds, of `new_turn`


class Reading:
    """One reader: what it has read, and how its reading ended."""

    def __init__(self, turn: Turn, turns: Turns) -> None:
        self.events: list[Event] = []
        self.end = ""
        self.task = asyncio.get_running_loop().create_task(self._read(turn, turns))

    async def _read(self, turn: Turn, turns: Turns) -> None:
        with turns.reading(turn):
            try:
                while entries := await turn.journal.read(len(self.events)):
                    self.events += [entry.event for entry in entries]
                self.end = "ended"
            except Left:
                self.end = "left"


class TurnMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.crashes: list[str] = []
        self.turns = Turns(Tasks(lambda name, error: self.crashes.append(repr(error))))
        self.released = 0
        self.readings: list[Reading] = []
        self.kept = self.sealed = self.left = False
        self._now(self._begin)

    def _begin(self) -> None:
        self.turn = new_turn(clock=LoopClock(self.loop))
        self.turn.held.callback(self._release)
        self.turns.start(self.turn, self._work())
        self.turn.start(3)

    async def _work(self) -> None:
        await asyncio.get_running_loop().create_future()

    def _release(self) -> None:
        self.released += 1

    def _now(self, what: object, *args: object) -> None:
        """Does it in the loop, and lets what follows at once happen."""

        async def doing() -> None:
            what(*args)  # type: ignore[operator]
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(doing())

    @rule(count=st.integers(1, 3))
    def append(self, count: int) -> None:
        before = len(self.turn.journal)
        self._now(lambda: [self.turn.append(Delta("x", [i])) for i in range(count)])
        assert len(self.turn.journal) == before + (0 if self.turn.outcome else count)

    @rule()
    def finish(self) -> None:
        self._now(self.turn.finish, (Ending(FinishReason.STOP),), 0)

    @rule(error=st.sampled_from([EngineLost("lost"), Cancelled("gone")]))
    def fail(self, error: HeadraceError) -> None:
        self._now(self.turn.fail, error)

    @rule(verdict=st.sampled_from([Verdict.FENCED, Verdict.CANCELLED]))
    def hear(self, verdict: Verdict) -> None:
        """A recorder says FENCED of what the store did not take, and nothing after a seal."""
        if verdict is Verdict.FENCED and (self.sealed or not self.kept):
            return
        self.left = self.left or verdict is Verdict.FENCED
        self._now(self.turn.hear, verdict)

    @precondition(lambda self: not self.kept and self.turn.outcome is None)
    @rule()
    def keep(self) -> None:
        self.kept = True
        self._now(self.turn.journal.keep, lambda journal: None)

    @precondition(lambda self: self.kept and self.turn.journal.closed and not self.left)
    @rule()
    def seal(self) -> None:
        self.sealed = True
        self._now(self.turn.journal.seal)

    @precondition(lambda self: len(self.turns))  # else nobody finds it here
    @rule()
    def read(self) -> None:
        self._now(lambda: self.readings.append(Reading(self.turn, self.turns)))

    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        if self.readings:
            self._now(data.draw(st.sampled_from(self.readings)).task.cancel)

    @rule(seconds=st.sampled_from([1.0, LINGER - 1, LINGER + 1]))
    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @invariant()
    def it_ends_once(self) -> None:
        ends = [
            i for i, event in enumerate(self.turn.journal.events, 1) if isinstance(event, Finished | Failed)
        ]
        assert ends in ([], [len(self.turn.journal)])
        assert bool(ends) == self.turn.journal.closed

    @invariant()
    def readers_have_the_same_beginning(self) -> None:
        all: Sequence[Event] = self.turn.journal.events
        for reading in self.readings:
            assert reading.events == list(all[: len(reading.events)])
            if any(isinstance(event, Finished | Failed) for event in reading.events):
                assert self.sealed or not self.kept

    @invariant()
    def nobody_waits_for_what_will_not_come(self) -> None:
        over = self.left or (self.turn.journal.closed and (self.sealed or not self.kept))
        for reading in self.readings:
            assert not over or reading.task.done()

    @invariant()
    def what_it_holds_is_released_once_it_is_over(self) -> None:
        over = self.turn.outcome is not None and all(reading.task.done() for reading in self.readings)
        assert self.released == over
        assert len(self.turns) == (not over)
        assert not self.crashes

    def teardown(self) -> None:
        self._now(self.turn.fail, Cancelled("the test ends"))
        for reading in self.readings:
            self._now(reading.task.cancel)
        self.loop.run_until_complete(asyncio.sleep(1))
        self.loop.close()


TestTurn = TurnMachine.TestCase
TestTurn.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


async def test_a_turn_that_comes_back_to_its_gateway_leaves_nothing_of_its_first_stay() -> None:
    """It was taken over from here, and its readers are still here when it is taken over again."""
    turns, released = Turns(Tasks(lambda name, error: None)), list[str]()

    async def work() -> None: ...

    first, second = new_turn(), new_turn()
    first.held.callback(released.append, "first")
    second.held.callback(released.append, "second")
    with turns.reading(first):
        turns.start(first, work())
        first.leave(first.id)
        turns.start(second, work())
        await asyncio.sleep(0.001)
        assert released == ["second"] and not turns.runs(second.id)
    assert released == ["second", "first"] and not len(turns)


async def test_nothing_waits_for_readers_of_a_turn_that_is_read_or_over() -> None:
    """A look each second for an hour would hold 3600 times on to the turn, and for an hour after its end."""
    turns = Turns(Tasks(lambda name, error: None))

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    turn = new_turn()
    turns.start(turn, work())
    waiting = list[asyncio.TimerHandle]()
    for _ in range(3):
        with turns.reading(turn):
            assert turn.lonely is None
        assert turn.lonely is not None
        waiting.append(turn.lonely)
    assert [handle.cancelled() for handle in waiting] == [True, True, False]
    turn.fail(Cancelled("over"))
    await asyncio.sleep(0.001)
    assert waiting[-1].cancelled() and not len(turns)


def test_a_journal_that_was_left_tells_what_it_has_first() -> None:
    async def work() -> None:
        journal = MemoryJournal([Delta("a", [1])])
        journal.leave("turn_1")
        assert len(await journal.read(0)) == 1
        try:
            await journal.read(1)
        except Left as left:
            assert left.turn == "turn_1"
        else:
            raise AssertionError("it goes on")

    asyncio.run(work())
