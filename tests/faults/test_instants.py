"""F8: a gateway is killed at each of ten instants of a turn, with others in mid-stream, while a second one lives.

Every stream is compared with that of an unfailed twin."""

import psutil
import pytest
from grpc_health.v1 import health_pb2

from services.client import Client, Delta, Finished
from tests.faults.checks import TOKENS, begin, check, ends, prompts, streams
from tests.faults.fault import Killed, KilledFamily, NotInjected, under
from tests.faults.gateway import INSTANTS
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.talk import Process
from tests.faults.world import twins, world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

OTHERS = 3  # of each of two tenants
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
        caller, stranger = await made.caller(), await made.caller("stranger")
        for gateway in (doomed, heir):
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, heir.address, [*prompts(OTHERS), *prompts(OTHERS, "theirs")], TOKENS)
        answers |= await twins(caller, heir.address, ["the victim"], SHORT)
        others = await streams(caller, OTHERS) + await streams(stranger, OTHERS, of="theirs")
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
                ("P1", "P2", "P3", "P5", "P7", "P10"),
                "the instant as the process said it, exit -9",
                len(histories),
                {"takeover s": gap},
            )
        )


@pytest.mark.parametrize("family", [False, True], ids=["worker", "supervisor and worker"])
async def test_a_killed_gateway_of_operators_costs_no_token(family: bool) -> None:
    """A worker alone is started again by its supervisor; either that one or the other gateway takes over."""
    async with world() as made:
        doomed, heir = await made.supervised(), await made.gateway()
        caller = await made.caller(gateways=[doomed.address, heir.address])
        await made.connected(caller, heir, 2)
        answers = await twins(caller, heir.address, prompts(6), TOKENS)
        begun = await streams(caller, 6)
        [worker] = psutil.Process(doomed.process.pid).children()
        fault = KilledFamily(doomed.process.pid) if family else Killed(worker.pid)
        async with under(fault) as moment:
            histories = await ends(begun)
        await check(made, histories, answers)
        gap = max(next_event(history, moment) for history in histories)
        assert gap <= TAKEOVER
        if not family:
            await doomed.reports(health_pb2.HealthCheckResponse.SERVING)
        note(Finding("F8", ("P1", "P2", "P3", "P7", "P10"), fault.proof, len(histories), {"takeover s": gap}))


async def test_the_python_client_rides_over_a_killed_gateway() -> None:
    async with world(gateways=2) as made:
        caller = await made.caller()
        for gateway in made.gateways:
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, made.gateways[1].address, ["by the client"], TOKENS)
        key = caller.auth[0][1].removeprefix("Bearer ")
        async with Client([gateway.address for gateway in made.gateways], key) as client:
            text, seqs = "", list[int]()
            async for event in client.stream("by the client", max_tokens=TOKENS, timeout=60):
                seqs.append(event.seq)
                text += event.text if isinstance(event, Delta) else ""
                if len(seqs) == 20:
                    [runs] = [g for g in made.gateways if (await g.ledger())["held"]["slots"]]
                    fault = Killed(runs.process.pid)
                    await fault.inject()
                    await fault.verify()
        assert text == answers["by the client"]
        assert isinstance(event, Finished) and await made.at_rest() == []
        note(Finding("F8", ("P1", "P2", "P7"), fault.proof, 1))
