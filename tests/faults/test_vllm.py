"""F1, F2, F3 on real vLLM under Ray Serve: the engine core or a shard is killed, or stands still, in mid-stream.

Rounding may part a continued answer from the unfailed one late, so P2 is judged by positions, counts and a prefix.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import psutil
import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import models_pb2, models_pb2_grpc
from tests.faults import promises
from tests.faults.caller import Caller, calling
from tests.faults.fault import Fault, Frozen, Killed, shows, state_of, under
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.support.up import Up, running_stack

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(420)]

TOKENS = 150
SAME = 60  # characters
TOLD = 2.0  # seconds from the end of a process to a replica that takes no turns
RELOAD = 240.0  # seconds for another replica
PROMISES = ("P1", "P2", "P7")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_stack(tmp_path_factory.mktemp("whole"), "--model", "smollm2-135m") as up:
        yield up


@asynccontextmanager
async def client(up: Up) -> AsyncIterator[Caller]:
    key = (up.home / "api-key").read_text().strip()
    auth = (("authorization", f"Bearer {key}"),)
    async with calling("local", auth, [up.record["endpoint"]]) as caller:
        await until_replicas(caller, RELOAD, lambda connected, running: connected == 1)
        yield caller


async def until_replicas(caller: Caller, seconds: float, wanted: Callable[[int, int], bool]) -> None:
    """Waits for numbers of connected replicas and of their turns."""
    stub = models_pb2_grpc.ModelsStub(caller.channel(caller.gateways[0]))
    async with asyncio.timeout(seconds):
        while True:
            reply = await stub.ListModels(
                models_pb2.ListModelsRequest(), metadata=caller.auth, wait_for_ready=True
            )
            [model] = reply.models
            connected = [replica for replica in model.replicas if replica.connected]
            if wanted(len(connected), sum(replica.running + replica.waiting for replica in connected)):
                return
            await asyncio.sleep(0.02)


async def hit(caller: Caller, fault: Fault, told: float) -> tuple[History, float, float]:
    """A greedy turn under a fault after its tenth token: its history, the seconds until its replica was left, and
    those until its next token."""
    history = caller.history("Tell me a very long story.", seconds=RELOAD)
    greedy = pb.Sampling(temperature=0)
    turn = asyncio.create_task(caller.run(history, max_tokens=TOKENS, sampling=greedy, ignore_eos=True))
    await history.tokens(10)
    async with under(fault) as moment:
        await until_replicas(caller, told, lambda connected, running: connected == 0)
        left = time.monotonic() - moment
        await turn
    await until_replicas(caller, 10, lambda connected, running: running == 0)
    return history, left, history.next_after(moment)


async def judge(caller: Caller, history: History) -> None:
    calm = caller.history(history.prompt)
    await caller.run(calm, max_tokens=TOKENS, sampling=pb.Sampling(temperature=0), ignore_eos=True)
    assert promises.one_ending([history]) == []
    assert promises.nothing_lost([history], {history.prompt: history.text}) == []
    assert history.completed and history.delivered == TOKENS
    assert history.text[:SAME] == calm.text[:SAME]


def only(up: Up, title: str) -> psutil.Process:
    [found] = up.engine_processes(title)
    return found


async def test_a_killed_engine_core_is_replaced_and_its_turn_goes_on(whole: Up) -> None:
    async with client(whole) as caller:
        core = only(whole, "VLLM::EngineCore")
        fault = Killed(core.pid)
        history, left, gap = await hit(caller, fault, TOLD)
        await judge(caller, history)
        assert only(whole, "VLLM::EngineCore").pid != core.pid
        note(
            Finding(
                "F1",
                PROMISES,
                fault.proof,
                1,
                {"replica left after s": left, "its only successor's token after s": gap},
            )
        )


async def test_an_engine_core_that_stands_still_is_replaced_and_its_turn_goes_on(whole: Up) -> None:
    async with client(whole) as caller:
        core = only(whole, "VLLM::EngineCore")
        fault = Frozen(core.pid)
        history, left, gap = await hit(caller, fault, 60)
        await judge(caller, history)
        await shows(lambda: state_of(core.pid) in ("", "Z"), "the frozen core is still there")
        figures = {"vLLM replica left after s": left, "its only successor's token after s": gap}
        note(Finding("F3", PROMISES, fault.proof, 1, figures))


async def test_a_killed_shard_is_no_half_alive_replica(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its random weights answer under a grammar, which cannot go on elsewhere: the turn may be told so."""
    words = ("--model", "gpt-oss-tiny", "--tensor-parallel", "2")
    with running_stack(tmp_path_factory.mktemp("shards"), *words) as up:
        async with client(up) as caller:
            shards = up.engine_processes("VLLM::Worker_TP")
            history = caller.history("Tell me", seconds=RELOAD)
            thinks = pb.Reasoning(include=True)
            turn = asyncio.create_task(caller.run(history, max_tokens=2000, reasoning=thinks))
            await history.until(lambda seen: len(seen.events) > 3)
            fault = Killed(shards[1].pid)
            async with under(fault) as moment:
                await until_replicas(caller, TOLD, lambda connected, running: connected == 0)
                left = time.monotonic() - moment
                await turn
            assert promises.one_ending([history]) == []
            assert history.terminal and history.terminal.outcome in ("ENGINE_LOST", "")
            await until_replicas(caller, RELOAD, lambda connected, running: connected == 1)
            assert not {one.pid for one in up.engine_processes("VLLM::Worker_TP")} & {s.pid for s in shards}
            note(Finding("F2", ("P1",), fault.proof, 1, {"replica left after s": left}))
