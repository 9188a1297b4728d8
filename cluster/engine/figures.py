"""vLLM's own metrics, fed from the step outputs that the adapter reads anyway, so that dashboards made for vLLM work.

vLLM's output handler, which would feed them, does not run. Recording costs some 0.1 ms through Ray, so it happens
once a second and not for each step; between two records a step costs a pass over its outputs. Beside what needs
features that are off here (LoRA, speculation, KV transfer, multi-modal input), this differs from vLLM's handler:
`inter_token_latency_seconds` has one value for each step and not one for each of its tokens, and turns that
were cancelled leave no `request_*` values.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest
from vllm.v1.metrics.loggers import PrometheusStatLogger, StatLoggerFactory, StatLoggerManager
from vllm.v1.metrics.stats import (
    IterationStats,
    LoRARequestStates,
    PrefixCacheStats,
    RequestStateStats,
    SchedulerStats,
)

PERIOD = 1.0  # seconds between two records
NO_LORA = LoRARequestStates(log_stats=False)


def stat_loggers() -> list[StatLoggerFactory] | None:
    """Within Ray, vLLM's metrics as Ray's: `ray_vllm_*` on Ray's metrics port. Elsewhere vLLM's default, `vllm:*`."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    return [RayPrometheusStatLogger]


@dataclass(slots=True)
class Turn:
    """What vLLM counts of a request until it ends."""

    prompt_tokens: int
    max_tokens: int | None
    stats: RequestStateStats
    tokens: int = 0
    cached: int = 0
    begun: bool = False


class StepSizes:
    """In place of vLLM's histogram of tokens in a step, which would get the sum of a second."""

    def __init__(self, histogram: Any) -> None:
        self._histogram = histogram
        self.sizes: list[int] = []

    def observe(self, _: float) -> None:
        for size in self.sizes:
            self._histogram.observe(size)
        self.sizes.clear()


class Figures:
    """`manager` is None where vLLM keeps no statistics; then nothing is kept here either."""

    def __init__(self, manager: StatLoggerManager | None, period: float = PERIOD) -> None:
        self._manager = manager
        self._period = period
        self._turns: dict[str, Turn] = {}
        self._begun = 0  # of them, those that had output
        self._steps = [] if manager is None else step_sizes(manager.stat_loggers)
        self._iteration = IterationStats()
        self._prefix = PrefixCacheStats()
        self._last = self._recorded = 0.0  # times of the engine core's clock

    def begins(self, request: EngineCoreRequest) -> None:
        prompt, params = request.prompt_token_ids or (), request.sampling_params
        limit = None if params is None else params.max_tokens
        stats = RequestStateStats(arrival_time=request.arrival_time)
        self._turns[request.request_id] = Turn(len(prompt), limit, stats)

    def forget(self, request: str) -> None:
        turn = self._turns.pop(request, None)
        self._begun -= turn is not None and turn.begun

    def step(self, outputs: EngineCoreOutputs) -> None:
        if self._manager is None:
            return
        now, tokens = outputs.timestamp, 0
        before = self._iteration.prompt_token_stats.computed
        if self._begun and outputs.outputs:
            self._iteration.inter_token_latencies_iter.append(now - self._last)
        for output in outputs.outputs:
            if (turn := self._turns.get(output.request_id)) is None:
                continue
            tokens += (count := len(output.new_token_ids))
            turn.tokens += count
            if not turn.begun or output.events or output.finish_reason is not None:
                self._changed(turn, output, now)
        self._iteration.num_generation_tokens += tokens
        size = tokens + self._iteration.prompt_token_stats.computed - before
        for sizes in self._steps:
            sizes.sizes.append(size)
        self._last = now
        self._scheduled(outputs.scheduler_stats, now)

    def _scheduled(self, stats: SchedulerStats | None, now: float) -> None:
        """What vLLM tells as a difference to the step before is added up; the rest is as of the last step."""
        if stats is None:
            return
        new = stats.prefix_cache_stats
        self._prefix.queries += new.queries
        self._prefix.hits += new.hits
        idle = not (stats.num_running_reqs or stats.num_waiting_reqs)
        if idle or now - self._recorded >= self._period:
            stats.prefix_cache_stats, self._prefix = self._prefix, PrefixCacheStats()
            self._record(stats, now)

    def _record(self, stats: SchedulerStats, now: float) -> None:
        assert self._manager is not None
        self._manager.record(stats, self._iteration)
        self._iteration, self._recorded = IterationStats(), now

    def _changed(self, turn: Turn, output: EngineCoreOutput, now: float) -> None:
        iteration, stats = self._iteration, turn.stats
        iteration.iteration_timestamp = time.time()
        if output.events:
            iteration.update_from_events(output.request_id, output.events, False, stats, NO_LORA, None)
        if not turn.begun:
            self._first(turn, output, now)
        if output.finish_reason is not None:
            stats.last_token_ts, stats.num_generation_tokens = now, turn.tokens
            self._finished(turn, output)

    def _first(self, turn: Turn, output: EngineCoreOutput, now: float) -> None:
        iteration, prefill = self._iteration, output.prefill_stats
        if prefill is not None:
            turn.cached = prefill.num_cached_tokens
            iteration.prompt_token_stats.update_from_output(prefill)
        turn.stats.first_token_ts = now
        iteration.time_to_first_tokens_iter.append(iteration.iteration_timestamp - turn.stats.arrival_time)
        turn.begun = True
        self._begun += 1

    def _finished(self, turn: Turn, output: EngineCoreOutput) -> None:
        assert output.finish_reason is not None
        iteration, ended = self._iteration, (turn.prompt_tokens, turn.max_tokens, turn.stats, turn.cached)
        iteration.update_from_finished_request(output.finish_reason, output.request_id, *ended)
        iteration.max_num_generation_tokens_iter.append(turn.tokens)
        iteration.n_params_iter.append(1)
        self.forget(output.request_id)


def step_sizes(loggers: Sequence[Any]) -> list[StepSizes]:
    found = []
    for logger in loggers:
        if isinstance(logger, PrometheusStatLogger):
            histogram = logger.histogram_iteration_tokens[0]
            # An earlier adapter of the same engine has put its own there.
            sizes = histogram if isinstance(histogram, StepSizes) else StepSizes(histogram)
            logger.histogram_iteration_tokens[0] = sizes
            found.append(sizes)
    return found
