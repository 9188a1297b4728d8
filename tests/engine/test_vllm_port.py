"""The engine port on a real vLLM engine: one contract, both adapters, and what only one promises."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psutil
import pytest
from vllm.v1.engine.async_llm import AsyncLLM

from cluster.engine.port import (
    Cause,
    Engine,
    EngineDead,
    EngineRequest,
    Finished,
    First,
    Logprobs,
    RequestRejected,
)
from cluster.engine.reference import ReferenceEngine
from cluster.engine.vllm import VllmEngine
from cluster.link.server import Identity, LinkServer
from cluster.link.switchboard import Switchboard
from cluster.link.v1 import link_pb2 as pb
from tests.support.engine_link import TOKEN, Gateway

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

PROMPTS = [[7 * i + j for j in range(10 + 5 * i)] for i in range(6)]


class Outcome:
    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.ends: dict[int, Finished] = {}
        self.firsts: dict[int, First] = {}
        self.logprobs: dict[int, Logprobs] = {}


def values(told: Logprobs) -> tuple[Sequence[float], ...]:
    return told.sampled, told.top_ids, told.top


async def run(engine: Engine, *requests: EngineRequest) -> Outcome:
    outcome = Outcome()
    for request in requests:
        await engine.submit(request)
    while len(outcome.ends) < len(requests):
        step = await engine.step()
        tokens = iter(step.tokens)
        for id, count in zip(step.ids, step.counts or [1] * len(step.ids), strict=True):
            outcome.tokens.setdefault(id, []).extend(next(tokens) for _ in range(count))
        for told in step.logprobs:
            known = outcome.logprobs.setdefault(told.id, Logprobs(told.id, [], [], []))
            joined = [[*old, *new] for old, new in zip(values(known), values(told), strict=True)]
            outcome.logprobs[told.id] = Logprobs(told.id, *joined)  # type: ignore[arg-type]
        outcome.firsts |= {first.id: first for first in step.firsts}
        outcome.ends |= {end.id: end for end in step.finishes}
    return outcome


@asynccontextmanager
async def reference(llm: AsyncLLM) -> AsyncIterator[ReferenceEngine]:
    """AsyncLLM's output handler takes the step outputs while this lasts, and gives them back."""
    yield ReferenceEngine(llm)
    handler = llm.output_handler
    if handler is None:
        return
    handler.cancel()
    await asyncio.wait([handler])
    llm.output_handler = None


def greedy(id: int, prompt: list[int], **fields: object) -> EngineRequest:
    return EngineRequest(id=id, prompt=prompt, temperature=0.0, **({"max_tokens": 24} | fields))  # type: ignore[arg-type]


async def test_both_adapters_say_the_same(llm: AsyncLLM) -> None:
    requests = [greedy(id, prompt) for id, prompt in enumerate(PROMPTS, start=1)]
    plain = [greedy(id + 100, prompt) for id, prompt in enumerate(PROMPTS, start=1)]
    stepwise = await run(VllmEngine(llm), *requests)
    async with reference(llm) as engine:
        expected = await run(engine, *plain)
    assert [stepwise.tokens[r.id] for r in requests] == [expected.tokens[r.id] for r in plain]
    assert {end.cause for end in (*stepwise.ends.values(), *expected.ends.values())} == {Cause.LENGTH}
    assert stepwise.firsts.keys() == {r.id for r in requests}
    stop = stepwise.tokens[1][7]
    fields = {"stop_ids": (stop,)}
    ended = await run(VllmEngine(llm), greedy(1, PROMPTS[0], **fields))
    async with reference(llm) as engine:
        also = await run(engine, greedy(1, PROMPTS[0], **fields))
    assert ended.tokens == also.tokens == {1: stepwise.tokens[1][: stepwise.tokens[1].index(stop)]}
    assert ended.ends == also.ends == {1: Finished(1, Cause.STOP, stop_id=stop)}


async def test_a_continued_prompt_goes_on_with_the_same_tokens(llm: AsyncLLM) -> None:
    engine, prompt = VllmEngine(llm), PROMPTS[2]
    whole = (await run(engine, greedy(1, prompt))).tokens[1]
    assert (await run(engine, greedy(2, prompt + whole[:9], max_tokens=15))).tokens[2] == whole[9:]


async def test_stop_ids_are_not_sampled_before_min_tokens(llm: AsyncLLM) -> None:
    engine, prompt = VllmEngine(llm), PROMPTS[3]
    whole = (await run(engine, greedy(1, prompt))).tokens[1]
    held = await run(engine, greedy(2, prompt, min_tokens=20, stop_ids=(whole[3],)))
    assert len(held.tokens[2]) >= 20
    assert whole[3] not in held.tokens[2][:20]


async def test_a_prefix_is_shared_within_a_salt_only(llm: AsyncLLM) -> None:
    engine, prompt = VllmEngine(llm), list(range(500, 700))

    async def cached(id: int, salt: str) -> int:
        return (await run(engine, greedy(id, prompt, cache_salt=salt))).firsts[id].cached_tokens

    assert await cached(1, "a" * 64) == 0
    assert await cached(2, "a" * 64) > 0
    assert await cached(3, "b" * 64) == 0


async def test_extreme_but_valid_sampling_is_served(llm: AsyncLLM) -> None:
    request = EngineRequest(
        id=1,
        prompt=[5],
        max_tokens=4,
        temperature=2.0,
        top_k=2**32 - 1,
        top_p=1e-6,
        min_p=1.0,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        repetition_penalty=0.01,
        seed=2**64 - 1,
    )
    assert len((await run(VllmEngine(llm), request)).tokens[1]) == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"min_tokens": 5000, "max_tokens": 10},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"stop_ids": (2**32 - 1,)},
        {"prompt": []},
        {"prompt": [1] * 2048},
    ],
    ids=str,
)
async def test_a_bad_request_is_rejected_alone(llm: AsyncLLM, fields: dict[str, object]) -> None:
    engine = VllmEngine(llm)
    values = {"id": 1, "prompt": [1, 2], "max_tokens": 4} | fields
    with pytest.raises(RequestRejected):
        await engine.submit(EngineRequest(**values))  # type: ignore[arg-type]
    assert engine.load().waiting == 0
    assert len((await run(engine, greedy(2, [3]))).tokens[2]) == 24


async def test_cancel_frees_the_engine_within_100_ms(llm: AsyncLLM) -> None:
    """The best of three: on a busy machine one may wait for the processor alone."""
    engine = VllmEngine(llm)
    assert min([await seconds_to_cancel(engine, turns=16) for _ in range(3)]) < 0.1


async def seconds_to_cancel(engine: VllmEngine, turns: int) -> float:
    many = range(1, turns + 1)
    for id in many:
        await engine.submit(greedy(id, PROMPTS[0], max_tokens=1900))
    while engine.load().queued_tokens:
        await engine.step()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await engine.cancel(many)
    assert engine.load().running == 0
    # The engine's own count, read with the next turn's first step, proves that blocks are free.
    outcome = await run(engine, greedy(20, [9], max_tokens=1))
    seconds = loop.time() - started
    assert outcome.tokens.keys() == {20}
    assert engine._stats.num_running_reqs <= 1
    return seconds


@asynccontextmanager
async def served(llm: AsyncLLM) -> AsyncIterator[tuple[Switchboard, Gateway]]:
    board = Switchboard(VllmEngine(llm), 64)
    server = LinkServer(board, Identity("r", "micro", ""), TOKEN)
    board.start()
    gateway = Gateway(await server.start("127.0.0.1"))
    await gateway.hello()
    try:
        yield board, gateway
    finally:
        await gateway.close()
        await server.stop(0)
        await board.stop()


async def test_the_link_carries_a_real_engine(llm: AsyncLLM) -> None:
    expected = await run(VllmEngine(llm), *(greedy(id, PROMPTS[id % 6]) for id in range(1, 33)))
    async with served(llm) as (board, gateway):
        await board.probe()
        for id in range(1, 33):
            sampling = pb.Sampling(temperature=0.0)
            await gateway.submit(id, PROMPTS[id % 6], 24, sampling=sampling)
        await gateway.submit(99, [2**31], 4)
        ledger = await gateway.finished(*range(1, 33), 99)
    assert ledger.finishes[99].cause == pb.FINISH_CAUSE_REJECTED
    assert ledger.tokens == expected.tokens


async def test_a_killed_engine_core_is_told_at_once(llm: AsyncLLM) -> None:
    async with served(llm) as (board, gateway):
        await gateway.submit(1, PROMPTS[0], 1900)
        await gateway.until(lambda ledger: 1 in ledger.tokens)
        (core,) = (child for child in psutil.Process().children() if "EngineCore" in child.name())
        os.kill(core.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            ledger = await gateway.finished(1)
        assert ledger.finishes[1].cause == pb.FINISH_CAUSE_ENGINE
        with pytest.raises(EngineDead):
            await board.probe()
        with pytest.raises(EngineDead):
            await board.engine.submit(greedy(5, [1]))
        await board.engine.cancel([1])
