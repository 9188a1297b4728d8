"""F17, F18: clients that are cut off without a word, links that are slow, readers that do not read."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise

import grpc
import pytest

from services.api.headrace.v1 import inference_pb2_grpc
from tests.faults import promises
from tests.faults.caller import CHANNEL, Caller, seen
from tests.faults.checks import LONG, TOKENS, begin, check, ends, prompts, streams
from tests.faults.fault import NotInjected
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.world import twins, world
from tests.support.gateway import ask
from tests.support.proxy import BOTH, Proxy, Way, running_proxy
from tests.support.valkey import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

SILENCE = 2.0  # seconds without an event, then a client looks elsewhere
MUTE = 8
PILE = 3000  # tokens that nobody reads


def swallowed(link: Proxy) -> None:
    """Raises NotInjected."""
    if not link.lost(Way.DOWN):
        raise NotInjected("the link lost nothing")


@pytest.mark.parametrize("ways", [BOTH, (Way.DOWN,)], ids=["both ways", "half open"])
async def test_a_client_that_is_cut_off_without_a_word_goes_on_by_another_path(ways: tuple[Way, ...]) -> None:
    async with world(gateways=2) as made:
        near, far = made.gateways
        host, _, port = near.address.rpartition(":")
        async with running_proxy(host, int(port)) as link:
            caller = await made.caller(gateways=[f"127.0.0.1:{link.port}", far.address])
            caller.silence = SILENCE
            await made.connected(caller, far, 2)
            answers = await twins(caller, far.address, prompts(4), LONG)
            begun = await streams(caller, 4, LONG)
            await asyncio.gather(*(history.tokens(20) for history, _ in begun))
            link.black_hole(*ways)
            histories = await ends(begun)
            swallowed(link)
            await check(made, histories, answers, rest=30)
            assert all(history.attempts[0].status == "SILENT" for history in histories)
            found = max(history.next_after(history.attempts[0].ended) for history in histories)
            figures = {"next token by the other path s": found}
            note(Finding("F17", ("P1", "P2", "P3", "P7"), "bytes lost in the proxy", 4, figures))


@pytest.mark.slow
async def test_a_turn_whose_only_reader_vanished_is_ended_and_its_slot_is_free() -> None:
    """The server's keepalive finds out: 10 s and 5 s, and the turn lingers for 10 s."""
    async with world(step=0.025) as made:
        gateway = await made.gateway()
        host, _, port = gateway.address.rpartition(":")
        async with running_proxy(host, int(port)) as link:
            caller = await made.caller(gateways=[f"127.0.0.1:{link.port}"])
            history, turn = begin(caller, "left alone", 4000)
            await history.tokens(20)
            link.black_hole(*BOTH)
            moment = history.events[-1].at
            assert (await gateway.ledger())["held"]["slots"] == 1
            assert await made.at_rest(70) == []
            swallowed(link)
            freed = asyncio.get_running_loop().time() - moment
            turn.cancel()
            told = await gateway.ledger()
            assert told["outcomes"] == {"cancelled": 1.0}
            note(Finding("F17", ("P7",), "bytes lost in the proxy", 1, {"slot free after s": freed}))


async def test_a_slow_link_to_a_replica_slows_its_own_turns_only() -> None:
    async with world(replicas=1, gateways=0) as made:
        port = free_port()
        async with running_proxy("127.0.0.1", port) as link:
            await made.replica("slow", announce=f"127.0.0.1:{link.port}", port=port)
            gateway = await made.gateway()
            caller = await made.caller()
            await made.connected(caller, gateway, 2)
            answers = await twins(caller, gateway.address, prompts(8), TOKENS)
            link.delay(0.2, *BOTH)
            passed = link.passed(Way.DOWN)
            begun = await streams(caller, 8)
            for _ in range(5):
                # What a lost packet is to a stream: nothing for a while, then all of it.
                link.stall(Way.DOWN)
                seen = begun[0][0].delivered
                await begun[0][0].until(lambda h, seen=seen: h.delivered > seen + 8 or h.terminal is not None)
                link.flow()
            histories = await ends(begun)
            if link.passed(Way.DOWN) == passed:
                raise NotInjected("no turn used the slow link")
            await check(made, histories, answers)
            slow = {order.turn for order in made.replicas[-1].orders}
            gaps = [gap for history in histories if history.turn not in slow for gap in pauses(history)]
            assert slow and gaps
            figures = {"neighbours' p99 gap s": promises.percentile(gaps, 0.99)}
            assert figures["neighbours' p99 gap s"] < 0.1
            note(Finding("F18", ("P1", "P2", "P3", "P7", "P9"), "bytes through the slow link", 8, figures))


def pauses(history: History) -> list[float]:
    times = [event.at for event in history.events if event.kind == "delta"]
    return [b - a for a, b in pairwise(times)]


async def test_readers_that_do_not_read_cost_their_neighbours_nothing_and_can_come_back() -> None:
    async with world(gateways=1, step=0.003) as made, AsyncExitStack() as stack:
        gateway = made.gateways[0]
        caller, mute = await made.caller(), await made.caller("mute")
        await made.connected(caller, gateway, 2)
        answers = await twins(caller, gateway.address, prompts(4), LONG)
        answers |= await twins(mute, gateway.address, ["pile"], PILE)
        calm = [begin(caller, f"calm {i}", LONG) for i in range(4)]
        before = [gap for history in await ends(calm) for gap in pauses(history)]
        unread = [await begun_and_left(mute, gateway.address, stack) for _ in range(MUTE)]
        histories = await ends(await streams(caller, 4, LONG))
        during = [gap for history in histories for gap in pauses(history)]
        worst = promises.percentile(during, 0.99)
        assert worst < max(0.1, 3 * promises.percentile(before, 0.99))
        back = [await mute.read_again(history, gateway.address) for history in unread]
        if any(len(history.events) > 1 for history in unread):
            raise NotInjected("somebody read")
        await stack.aclose()
        await check(made, [*histories, *back], answers)
        note(
            Finding(
                "F18", ("P1", "P2", "P7", "P9"), "streams unread", MUTE + 4, {"neighbours' p99 gap s": worst}
            )
        )


async def begun_and_left(caller: Caller, gateway: str, stack: AsyncExitStack) -> History:
    """A turn whose client takes `started` from a connection of its own, and nothing after it."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway, options=CHANNEL))
    history = caller.history("pile")
    call = inference_pb2_grpc.InferenceStub(channel).StreamGenerate(
        ask("pile", max_tokens=PILE), metadata=caller.auth, timeout=60
    )
    history.add(seen(await call.read()))
    stack.callback(call.cancel)
    return history
