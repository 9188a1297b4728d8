"""F9, F10, F20: a gateway that leaves, one whose event loop stands still, and one with a wrong clock."""

import asyncio
import time
from itertools import pairwise

import grpc
import pytest
from grpc_health.v1 import health_pb2

from services.api.headrace.v1 import inference_pb2 as pb
from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.checks import LONG, TOKENS, begin, check, ends, prompts, streams, worst_gap
from tests.faults.fault import Killed, NotInjected, Terminated, under
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.world import World, twins, world
from tests.support.gateway import ask

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

GRACE = 2.0  # seconds: LONG has no room in it
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def begun_after_refusal(caller: Caller, gateway: str, leaving: "asyncio.Future[int]") -> int:
    """Asks for turns until the gateway is gone; returns how many it began after it had refused one as draining."""
    refused, begun = False, 0
    while not leaving.done():
        call = caller.inference(gateway).StreamGenerate(
            ask("too late", max_tokens=1), metadata=caller.auth, timeout=2
        )
        try:
            await call.read()
            begun += refused
        except grpc.aio.AioRpcError as error:
            refused = refused or error.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.sleep(0.02)
    return begun


async def test_a_gateway_that_is_told_to_leave_ends_what_fits_and_hands_on_the_rest() -> None:
    async with world() as made:
        leaving = await made.supervised(HEADRACE_DRAIN_GRACE=f"{GRACE:g}")
        heir = await made.gateway()
        caller = await made.caller(gateways=[leaving.address, heir.address])
        await made.connected(caller, heir, 2)
        answers = await twins(caller, heir.address, prompts(4), TOKENS)
        answers |= await twins(caller, heir.address, [f"long {i}" for i in range(4)], LONG)
        begun = await streams(caller, 4)
        begun += [begin(caller, f"long {i}", LONG) for i in range(4)]
        await asyncio.gather(*(history.tokens(3) for history, _ in begun))
        fault = Terminated(leaving.process.pid)
        gone = asyncio.ensure_future(leaving.process.process.wait())
        async with under(fault) as moment:
            await leaving.reports(NOT_SERVING)
            late = await begun_after_refusal(caller, leaving.address, gone)
            left = time.monotonic() - moment
            histories = await ends(begun)
        assert promises.drained(promises.Drain(await gone, left, GRACE, late), histories) == []
        await check(made, histories, answers)
        there = [history for history in histories if len(history.attempts) == 1]
        resumed = [history for history in histories if len(history.attempts) > 1]
        assert len(there) == len(resumed) == 4
        figures = {"left after s": left, "next token of the rest s": handed_on(resumed)}
        note(Finding("F9", ("P1", "P2", "P3", "P7", "P8"), fault.proof, len(histories), figures))


def handed_on(histories: list[History]) -> float:
    """Seconds from the end of the first call to the next token, at worst."""
    return max(history.next_after(history.attempts[0].ended) for history in histories)


@pytest.mark.parametrize("seconds", [2, 5], ids=["within the lease", "beyond the lease"])
async def test_a_gateway_that_stands_still_is_waited_for_or_fenced(seconds: int) -> None:
    async with world(gateways=2) as made:
        still, other = made.gateways
        caller, neighbour = await made.caller(), await made.caller(gateways=[other.address])
        for gateway in made.gateways:
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, other.address, prompts(6), LONG)
        mine = await streams(caller, 3, LONG)
        others = [begin(neighbour, f"turn {i}", LONG) for i in (3, 4, 5)]
        await asyncio.gather(*(history.tokens(3) for history, _ in others))
        moment = time.monotonic()
        await still.process.ask(f"block {seconds}")
        stood = time.monotonic() - moment
        histories = await ends([*mine, *others])
        lag = (await still.ledger())["lag"]
        if stood < seconds or lag < seconds - 1:
            raise NotInjected(f"stood still for {stood:.1f} s, its gauge says {lag:.1f} s")
        await check(made, histories, answers)
        taken = sum(history.events[-1].position.epoch > 0 for history in histories[:3])
        assert taken == (0 if seconds < 3 else 3)
        figures = {"neighbours' worst gap s": worst_stall(histories[3:], moment, seconds)}
        assert figures["neighbours' worst gap s"] < 1
        note(Finding("F10", ("P1", "P2", "P3", "P7"), "loop lag gauge", len(histories), figures))


def worst_stall(histories: list[History], moment: float, seconds: float) -> float:
    """The longest time without a token within so many seconds of a moment."""
    worst = 0.0
    for history in histories:
        times = [event.at for event in history.events if moment <= event.at <= moment + seconds]
        worst = max([worst, *(b - a for a, b in pairwise(times))])
    return worst


@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_a_wrong_wall_clock_ends_nothing_early_and_nothing_late(ahead: int) -> None:
    async with world(gateways=1) as made:
        wrong = await made.gateway(FAULT_CLOCK=str(ahead))
        right = made.gateways[0]
        caller = await made.caller(gateways=[wrong.address, right.address])
        for gateway in made.gateways:
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, right.address, prompts(4), LONG)
        begun = await streams(caller, 4, LONG)
        await expires(made, caller, wrong.address)
        async with under(Killed(wrong.process.pid)) as moment:
            histories = await ends(begun)
        await check(made, histories, answers)
        gap = worst_gap(histories, moment)
        assert gap < 5
        figures = {"takeover s": gap}
        note(Finding("F20", ("P1", "P2", "P3", "P7"), "clock as set, pid gone", len(histories), figures))


async def expires(made: World, caller: Caller, gateway: str) -> None:
    """A turn's own deadline is kept to the second, whatever the wall clock says."""
    history = caller.history("short-lived")
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as end:
        call = caller.inference(gateway).StreamGenerate(
            pb.GenerateRequest(messages=ask("short-lived").messages, max_tokens=2000, timeout_seconds=1),
            metadata=caller.auth,
        )
        async for _ in call:
            history.changed()
    assert end.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.9 < time.monotonic() - began < 3  # the clock is an hour off
