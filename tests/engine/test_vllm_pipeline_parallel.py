"""Two pipeline stages of two shards each: four processes that answer as one engine."""

import os

import pytest

from cluster.engine.launch import environment
from cluster.engine.port import Cause
from cluster.engine.vllm import start
from tests.engine.test_vllm_port import PROMPTS, Outcome, greedy, run
from tests.support.engine_micro import micro_settings

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

SAME = 8  # tokens on which both splits agree; sums in another order may part them later


async def outcome(**shape: object) -> Outcome:
    engine = await start(micro_settings(**shape))
    try:
        return await run(engine, *(greedy(i, prompt) for i, prompt in enumerate(PROMPTS)))
    finally:
        await engine.close()
        os.environ.update(environment(micro_settings()))


async def test_two_stages_of_two_shards_answer_as_one_shard() -> None:
    one = await outcome()
    # Each shard computes in one thread, on whichever core is free: there may be more shards than cores.
    four = await outcome(tensor_parallel_size=2, pipeline_parallel_size=2, omp_threads_bind="nobind")
    assert all(end.cause is Cause.LENGTH for end in four.ends.values())
    assert all(len(tokens) == 24 for tokens in four.tokens.values())
    assert [t[:SAME] for t in four.tokens.values()] == [t[:SAME] for t in one.tokens.values()]
