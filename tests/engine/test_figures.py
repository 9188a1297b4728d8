"""vLLM's own metrics, fed from the steps that the adapter reads, as its dashboards read them."""

from typing import Any

import pytest
from vllm.v1.engine.async_llm import AsyncLLM

from cluster.engine.port import EngineRequest
from cluster.engine.vllm import VllmEngine
from tests.engine.test_vllm_port import PROMPTS, run

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

COUNTED = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_count",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:request_prefill_time_seconds_count",
    "vllm:request_generation_tokens_sum",
    "vllm:iteration_tokens_total_sum",
)


def told(collectors: list[Any]) -> dict[str, float]:
    """All of them by name; of those with several label sets the sum."""
    found: dict[str, float] = {}
    for metric in (metric for each in collectors for metric in each.collect()):
        for sample in metric.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def test_vllms_metrics_tell_of_the_turns_that_ended(llm: AsyncLLM, collectors: list[Any]) -> None:
    before = told(collectors)
    engine = VllmEngine(llm)
    requests = [EngineRequest(id=i, prompt=prompt, max_tokens=8) for i, prompt in enumerate(PROMPTS)]
    await run(engine, *requests)
    after = told(collectors)
    grew = {name: after[name] - before.get(name, 0.0) for name in COUNTED}
    prompts = sum(map(len, PROMPTS))
    assert grew["vllm:generation_tokens_total"] == 8 * len(PROMPTS)
    assert grew["vllm:prompt_tokens_total"] == prompts
    assert grew["vllm:prefix_cache_queries_total"] == prompts
    assert grew["vllm:time_to_first_token_seconds_count"] == len(PROMPTS)
    assert grew["vllm:e2e_request_latency_seconds_count"] == len(PROMPTS)
    assert grew["vllm:request_prefill_time_seconds_count"] == len(PROMPTS)
    assert grew["vllm:request_generation_tokens_sum"] == 8 * len(PROMPTS)
    assert grew["vllm:inter_token_latency_seconds_count"] >= 7  # of steps, not of tokens
    computed = grew["vllm:prompt_tokens_total"] - (
        after["vllm:prompt_tokens_cached_total"] - before.get("vllm:prompt_tokens_cached_total", 0.0)
    )
    assert grew["vllm:iteration_tokens_total_sum"] == computed + 8 * len(PROMPTS)
    assert after["vllm:num_requests_running"] == after["vllm:num_requests_waiting"] == 0
