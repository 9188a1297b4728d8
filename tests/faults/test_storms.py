"""F19: more than the replicas can do, cancels at random tokens, and one idempotency key from everywhere at once."""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.checks import LONG, TOKENS, check
from tests.faults.fault import NotInjected
from tests.faults.history import History
from tests.faults.promises import Second
from tests.faults.table import Finding, note
from tests.faults.world import twins, world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

PLACES = 6  # turns that a replica takes
LENGTH = 60  # tokens of a turn: half a second
CALM, SURGE, AFTER = 5.0, 10.0, 6.0  # seconds
TIMES = 5  # the surge, in capacities
CANCELS = int(os.environ.get("FAULT_CANCELS", "400"))
COPIES = 20


@dataclass(slots=True)
class Load:
    """Turns sent at drawn times, whatever becomes of those before them."""

    caller: Caller
    tasks: "list[asyncio.Task[History]]" = field(default_factory=list)

    async def send(self, rate: float, seconds: float) -> float:
        """Open loop; returns the rate that was reached."""
        began, sent = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            while sent < now * rate:
                self._one(sent)
                sent += 1
            await asyncio.sleep(0.005)
        return sent / seconds

    def _one(self, i: int) -> None:
        history = self.caller.history(f"turn {i % 4}", seconds=10)
        work = self.caller.run(history, patient=False, max_tokens=LENGTH)
        self.tasks.append(asyncio.create_task(work))

    async def histories(self) -> list[History]:
        return list(await asyncio.gather(*self.tasks))


async def capacity(caller: Caller, seconds: float) -> float:
    """Turns per second with every place taken and nobody refused."""
    done, until = 0, time.monotonic() + seconds

    async def worker(i: int) -> None:
        nonlocal done
        while time.monotonic() < until:
            history = await caller.run(caller.history(f"turn {i % 4}"), max_tokens=LENGTH)
            done += history.completed

    await asyncio.gather(*(worker(i) for i in range(2 * PLACES)))
    return done / seconds


def by_second(histories: Sequence[History], began: float) -> list[Second]:
    ends = [h.terminal.at - began for h in histories if h.completed and h.terminal is not None]
    return [Second(at, sum(at <= end < at + 1 for end in ends)) for at in range(int(max(ends)) + 1)]


async def test_overload_refuses_early_and_heals_alone() -> None:
    async with world(replicas=0) as made:
        for i in range(2):
            await made.replica(f"small-{i}", capacity=PLACES)
        gateway = await made.gateway()
        caller = await made.caller()
        await made.connected(caller, gateway, 2)
        answers = await twins(caller, gateway.address, [f"turn {i}" for i in range(4)], LENGTH)
        able = await capacity(caller, CALM)
        load, began = Load(caller), time.monotonic()
        rate = await load.send(TIMES * able, SURGE)
        if rate < 0.95 * TIMES * able:
            raise NotInjected(f"{rate:.0f} turns/s were sent, {TIMES * able:.0f} intended")
        await load.send(able, AFTER)
        histories = await load.histories()
        seconds = by_second(histories, began)
        assert promises.overload(seconds, able, SURGE, share=0.8) == []
        assert promises.nothing_lost(histories, answers) == [] and promises.one_ending(histories) == []
        refusals = [attempt for h in histories if not h.completed for attempt in h.attempts]
        assert {attempt.status for attempt in refusals} == {"RESOURCE_EXHAUSTED"}
        assert all(attempt.refused for attempt in refusals)
        slowest = promises.percentile([attempt.ended - attempt.at for attempt in refusals], 0.99)
        assert await made.at_rest() == []
        goodput = sum(second.good for second in seconds if second.at < SURGE) / SURGE / able
        figures = {
            "capacities sent": rate / able,
            "refusal p99 s": slowest,
            "goodput lost at 5 C %": 100 - 100 * goodput,
        }
        note(Finding("F19", ("P1", "P2", "P6", "P7"), "achieved rate", len(histories), figures))


async def test_cancels_at_random_tokens_leave_nothing_behind() -> None:
    rng = random.Random(20)
    async with world(gateways=1, step=0.003) as made:
        gateway = made.gateways[0]
        caller = await made.caller()
        await made.connected(caller, gateway, 2)
        answers = await twins(caller, gateway.address, [f"turn {i}" for i in range(4)], TOKENS)
        histories: list[History] = []
        for start in range(0, CANCELS, 40):
            at = [(f"turn {i % 4}", rng.randrange(TOKENS)) for i in range(start, min(start + 40, CANCELS))]
            histories += await asyncio.gather(*(cancelled(caller, prompt, token) for prompt, token in at))
        assert promises.nothing_lost(histories, answers) == []
        assert await made.at_rest(30) == []
        told = await gateway.ledger()
        if told["outcomes"].get("cancelled", 0) < CANCELS / 2:
            raise NotInjected(f"outcomes {told['outcomes']}")
        note(Finding("F19", ("P2", "P7"), "outcomes cancelled", CANCELS))


async def cancelled(caller: Caller, prompt: str, token: int) -> History:
    """A turn that its client leaves after so many tokens, and that is not to go on without it."""
    history = caller.history(prompt)
    turn = asyncio.create_task(caller.run(history, max_tokens=TOKENS, linger_seconds=0))
    await history.tokens(token)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    return history


async def test_one_key_from_everywhere_is_one_turn() -> None:
    async with world(gateways=2) as made:
        caller = await made.caller()
        for gateway in made.gateways:
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, caller.gateways[0], ["the same"], LONG)
        histories = [caller.history("the same", "one key") for _ in range(COPIES)]
        await asyncio.gather(*(caller.run(h, first=i, max_tokens=LONG) for i, h in enumerate(histories)))
        await check(made, histories, answers)
        orders = [order for order in made.orders() if order.turn == histories[0].turn]
        assert len(orders) == 1 and len({history.turn for history in histories}) == 1
        stranger = await made.caller("other")
        theirs = await stranger.run(stranger.history("the same", "one key"), max_tokens=LONG)
        assert promises.one_execution([*histories, theirs]) == [] and theirs.turn != histories[0].turn
        note(
            Finding(
                "F19", ("P1", "P2", "P3", "P7"), "copies answered", COPIES + 1, {"executions": len(orders)}
            )
        )
