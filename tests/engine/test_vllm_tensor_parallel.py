"""One checkpoint in two shards: the settings reach vLLM, and the shards answer as one engine."""

import asyncio
import os
from time import monotonic

import psutil
import pytest

from cluster.engine.launch import environment
from cluster.engine.port import Cause, EngineDead
from cluster.engine.vllm import start
from tests.engine.test_vllm_port import PROMPTS, greedy, run
from tests.support.engine_micro import micro_settings

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each shard needs a core of its own")
async def test_two_shards_generate_as_one_engine() -> None:
    alone = micro_settings()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    engine = await start(micro_settings(tensor_parallel_size=2, omp_threads_bind="0|1"))
    try:
        outcome = await run(engine, *(greedy(i, prompt) for i, prompt in enumerate(PROMPTS)))
        assert all(len(tokens) == 24 for tokens in outcome.tokens.values())
        assert all(end.cause is Cause.LENGTH for end in outcome.ends.values())
        started = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
        shards = [child for child in started if "Worker_TP" in " ".join(child.cmdline())]
        assert len(shards) == 2
        # A turn runs: what is left of the group waits in a collective, which nobody ends but we.
        await engine.submit(greedy(99, PROMPTS[0], max_tokens=1000))
        await engine.step()
        killed = monotonic()
        shards[1].kill()
        with pytest.raises(EngineDead, match="Worker_TP1 ended"):
            while True:
                await engine.step()
        assert monotonic() - killed < 5  # the collective's own patience is minutes
    finally:
        await engine.close()
        os.environ.update(environment(alone))
    _, alive = await asyncio.to_thread(psutil.wait_procs, shards, 20)
    assert alive == []
