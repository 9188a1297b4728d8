"""F3, F4, F5 with SimEngine replicas as processes of their own: a replica is killed, frozen, mute, drained."""

import time
from dataclasses import dataclass

import pytest

from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.checks import TOKENS, begin, check, ends, prompts, streams, worst_gap
from tests.faults.fault import Fault, Frozen, Killed, Terminated, ended, under
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.talk import Process
from tests.faults.world import Replica, World, twins, world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

STREAMS = 8
MIGRATION = 1.5  # seconds from the death of a replica to the next token
SILENCE = 5.0  # the same of one that says nothing any more: 3 s of silence end its link


PROMISES = ("P1", "P2", "P3", "P7")
# Serve's part is played by the replica's process; the judges are the product's, in a hurry.
QUICK = {"canary_period_s": 0.5, "canary_timeout_s": 2.0, "canary_queued_timeout_s": 2.0, "stall_s": 2.0}
MUTE = 5.0  # seconds from the last token of a mute engine to the next one elsewhere


@dataclass(slots=True)
class Mute:
    process: Process
    proof: str = "the canary"

    async def inject(self) -> None:
        self.process.tell("hang")

    async def verify(self) -> None:
        await self.process.hear("unhealthy")

    async def heal(self) -> None:
        pass


async def holder(made: World) -> Replica:
    """The replica that runs the first turn."""
    for replica in made.replicas:
        if (await replica.load())["running"]:
            return replica
    raise AssertionError("no replica runs anything")


@pytest.mark.parametrize("token", [1, 20, TOKENS - 2])
async def test_a_killed_replica_costs_its_turns_no_token(token: int) -> None:
    async with world(gateways=1) as made:
        caller = await made.caller()
        await made.connected(caller, made.gateways[0], 2)
        answers = await twins(caller, caller.gateways[0], ["aimed"], TOKENS)
        history, turn = begin(caller, "aimed")
        await history.tokens(token)
        fault = Killed((await holder(made)).process.pid)
        async with under(fault) as moment:
            await turn
        await check(made, [history], answers)
        gap = history.next_after(moment)
        assert gap <= MIGRATION
        note(Finding("F4", PROMISES, fault.proof, 1, {"next token after s": gap}))


async def lose_one(
    made: World, caller: Caller, fault_of: object, most: float
) -> tuple[Fault, list[History], float]:
    answers = await twins(caller, caller.gateways[0], prompts(STREAMS), TOKENS)
    begun = await streams(caller, STREAMS)
    fault = fault_of(made.replicas[-1])
    async with under(fault) as moment:
        histories = await ends(begun)
    await check(made, histories, answers)
    gap = worst_gap(histories, moment)
    assert gap <= most
    return fault, histories, gap


async def test_many_turns_outlive_a_killed_replica() -> None:
    async with world(gateways=1) as made:
        caller = await made.caller()
        await made.connected(caller, made.gateways[0], 2)
        fault, histories, gap = await lose_one(made, caller, lambda r: Killed(r.process.pid), MIGRATION)
        note(Finding("F4", PROMISES, fault.proof, len(histories), {"next token after s": gap}))


async def test_turns_leave_a_frozen_replica_within_seconds() -> None:
    async with world(gateways=1) as made:
        caller = await made.caller()
        await made.connected(caller, made.gateways[0], 2)
        fault, histories, gap = await lose_one(made, caller, lambda r: Frozen(r.process.pid), SILENCE)
        note(Finding("F3", PROMISES, fault.proof, len(histories), {"next token after s": gap}))


async def test_turns_leave_an_engine_that_takes_orders_and_says_nothing() -> None:
    """Its process and its link live; only tokens do not come."""
    async with world(replicas=1, gateways=1) as made:
        await made.replica("mute", health=QUICK)
        caller = await made.caller()
        await made.connected(caller, made.gateways[0], 2)
        fault, histories, gap = await lose_one(made, caller, lambda r: Mute(r.process), MUTE)
        note(Finding("F3", PROMISES, fault.proof, len(histories), {"next token after s": gap}))


@pytest.mark.parametrize("grace", [5.0, 0.2])
async def test_a_drained_replica_ends_its_turns_or_hands_them_on_and_leaves_in_peace(grace: float) -> None:
    async with world(replicas=1, gateways=1) as made:
        await made.replica("heir")
        await made.replica("leaving", drain_grace_s=grace)
        caller = await made.caller()
        await made.connected(caller, made.gateways[0], 3)
        leaving = made.replicas[-1].process
        began = time.monotonic()
        fault, histories, gap = await lose_one(made, caller, lambda r: Terminated(r.process.pid), MIGRATION)
        code = await ended(leaving.process, 10)
        left = promises.Drain(code, time.monotonic() - began, grace + 2, 0)
        assert promises.drained(left, histories) == []
        figures = {"next token after s": gap}
        note(Finding("F5", ("P1", "P2", "P3", "P7", "P8"), fault.proof, len(histories), figures))
