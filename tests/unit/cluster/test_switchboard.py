"""Turns with a structural tag start in a task of their own; nothing is lost or left over on the way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from cluster.engine.port import Cause, EngineRequest, Finished, First, Logprobs, RequestRejected
from cluster.engine.sim import SimEngine, SimSettings, expected_tokens
from cluster.link.switchboard import Switchboard
from tests.support.engine_link import FAST

PROMPT = [3, 4]


class Ear:
    def __init__(self) -> None:
        self.said: list[int] = []
        self.ended: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

    def token(self, id: int, token: int) -> None:
        self.said.append(token)

    def scored(self, id: int, tokens: Sequence[int], logprobs: Logprobs) -> None:
        raise AssertionError("nobody asked for log probabilities")

    def first(self, id: int, first: First) -> None: ...

    def finish(self, id: int, end: Finished) -> None:
        self.ended.set_result(end)


class Clumsy(SimEngine):
    """Its submit fails in the way that `error` is."""

    error: Exception

    async def submit(self, request: EngineRequest) -> None:
        await asyncio.sleep(0)
        raise self.error


def structured(id: int) -> EngineRequest:
    return EngineRequest(id=id, prompt=PROMPT, max_tokens=5, structural_tag="{}")


@asynccontextmanager
async def running(engine: SimEngine) -> AsyncIterator[Switchboard]:
    board = Switchboard(engine, 8)
    board.start()
    yield board
    await board.stop()


async def test_a_structured_turn_runs_like_any_other() -> None:
    ear = Ear()
    async with running(SimEngine(SimSettings(timing=FAST))) as board:
        await board.submit(ear, structured(1))
        assert (await ear.ended).cause is Cause.LENGTH
        await board.idle()
    assert ear.said == expected_tokens(PROMPT, 5)


async def test_a_turn_that_is_cancelled_before_it_begins_never_runs() -> None:
    engine = SimEngine(SimSettings(timing=FAST))
    early, other = Ear(), Ear()
    async with running(engine) as board:
        await board.submit(early, structured(1))
        await board.cancel([1])
        await board.submit(other, structured(2))
        await other.ended
        assert (await early.ended).cause is Cause.CANCELLED
    assert early.said == []
    assert (engine.load().running, engine.load().waiting) == (0, 0)


@pytest.mark.parametrize(
    ("error", "cause"), [(RequestRejected("no"), Cause.REJECTED), (ZeroDivisionError(), Cause.ENGINE)]
)
async def test_a_start_that_fails_ends_its_turn(error: Exception, cause: Cause) -> None:
    engine = Clumsy(SimSettings(timing=FAST))
    engine.error = error
    ear = Ear()
    async with running(engine) as board:
        await board.submit(ear, structured(1))
        assert (await ear.ended).cause is cause
        await board.idle()
