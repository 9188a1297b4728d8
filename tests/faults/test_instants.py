"""F8: a gateway is killed at each of nine instants of a turn, with others in mid-stream, while a second one lives.

Every stream is compared with that of an unfailed twin."""

import pytest

from tests.faults.checks import TOKENS, begin, check, ends, prompts, streams
from tests.faults.fault import NotInjected
from tests.faults.gateway import INSTANTS
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.talk import Process
from tests.faults.world import twins, world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

OTHERS = 4
SHORT = 30  # tokens of the turn that is aimed at
TAKEOVER = 4.0  # seconds from the gateway's death to the next event: a lease of 3 s, and the way back


async def killed_itself(process: Process, instant: str) -> None:
    """Raises NotInjected."""
    said = await process.hear("killed")
    code = await process.process.wait()
    if (said, code) != (instant, -9):
        raise NotInjected(f"killed at {said!r} with exit code {code}")


def next_event(history: History, moment: float) -> float:
    return next((event.at for event in history.events if event.at > moment), float("inf")) - moment


@pytest.mark.parametrize("instant", INSTANTS)
async def test_a_gateway_killed_at_any_instant_costs_no_token(instant: str) -> None:
    async with world(gateways=2) as made:
        doomed, heir = made.gateways
        caller = await made.caller()
        for gateway in (doomed, heir):
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, heir.address, prompts(OTHERS), TOKENS)
        answers |= await twins(caller, heir.address, ["the victim"], SHORT)
        others = await streams(caller, OTHERS)
        await doomed.process.ask(f"arm {instant}")
        victim = begin(caller, "the victim", SHORT)
        await killed_itself(doomed.process, instant)
        moment = doomed.process.over
        histories = await ends([*others, victim])
        await check(made, histories, answers)
        gap = max(next_event(history, moment) for history in histories if history.events[-1].at > moment)
        assert gap <= TAKEOVER
        note(
            Finding(
                "F8",
                ("P1", "P2", "P3", "P7"),
                "the instant as the process said it, exit -9",
                len(histories),
                {"takeover s": gap},
            )
        )
