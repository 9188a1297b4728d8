"""vLLM behind the engine port, read step by step.

AsyncLLM's own output handler keeps a task and a queue per request. Reading the engine core's step
outputs in one loop costs a sixth of that, at the price of touching vLLM's internals: all of them are
named in this file, translate.py and figures.py, and held by the contract test against reference.py.
"""

import asyncio
import json
import multiprocessing.connection
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import vllm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.inputs.engine import tokens_input
from vllm.platforms import current_platform
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

from cluster.engine.figures import Figures, stat_loggers
from cluster.engine.group import Group
from cluster.engine.launch import LONE_SHARD, Place, VllmSettings
from cluster.engine.port import (
    Description,
    EngineDead,
    EngineRequest,
    Load,
    RequestRejected,
    StepArrays,
    StepOutput,
)
from cluster.engine.structure import check_structural_tag
from cluster.engine.translate import finish, first, first_line, refusal, sampling, scored, text_of
from cluster.engine.vocabulary import grammar_tokenizer

COMBINATION = "a JSON schema joins keywords that cannot be followed together, such as pattern and maxLength"


class VllmEngine:
    """Engine port over an AsyncLLM whose output handler was never started.

    A structural tag is checked in a thread, so that a large one delays nobody's tokens; `cancel` reaches
    a turn there too.
    """

    def __init__(self, llm: AsyncLLM, group: Group | None = None) -> None:
        if llm.output_handler is not None:
            raise EngineDead("the output handler of AsyncLLM runs and would steal step outputs")
        self._llm = llm
        self._group = group
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._prefills: dict[int, int] = {}
        self._logprobs: dict[int, int] = {}
        self._checking: set[int] = set()
        self._continued: set[int] = set()  # turns in a grammar
        self._stats = SchedulerStats()
        self._figures = Figures(llm.logger_manager)
        self._steps = 0
        self.description = describe(llm)

    async def submit(self, request: EngineRequest) -> None:
        if not request.structural_tag:
            await self._add(request, self._prepare(request))
            return
        self._checking.add(request.id)
        try:
            core_request = await asyncio.to_thread(self._prepare, request)
            if request.id in self._checking:
                await self._add(request, core_request)
        finally:
            self._checking.discard(request.id)

    def _prepare(self, request: EngineRequest) -> EngineCoreRequest:
        if request.structural_tag:
            request = with_structure(request, self._llm)
        try:
            return self._llm.input_processor.process_inputs(
                str(request.id),
                tokens_input(request.prompt, cache_salt=request.cache_salt or None),
                sampling(request),
                supported_tasks=("generate",),
                arrival_time=time.time(),
            )
        except (VLLMClientError, ValueError) as error:
            raise RequestRejected(refusal(error)) from error

    async def _add(self, request: EngineRequest, core_request: EngineCoreRequest) -> None:
        self._llm.input_processor.assign_request_id(core_request)
        self._ids[core_request.request_id] = request.id
        self._names[request.id] = core_request.request_id
        self._prefills[request.id] = len(request.prompt)
        if request.logprobs is not None:
            self._logprobs[request.id] = request.logprobs
        if request.structural_tag and request.continued:
            self._continued.add(request.id)
        self._figures.begins(core_request)
        try:
            await self._llm.engine_core.add_request_async(core_request)
        except EngineDeadError as error:
            raise EngineDead(first_line(error)) from error

    async def cancel(self, ids: Sequence[int]) -> None:
        self._checking.difference_update(ids)
        names = [name for id in ids if (name := self._forget(id)) is not None]
        try:
            await self._llm.engine_core.abort_requests_async(names)
        except EngineDeadError:
            # A dead engine runs nothing; step() tells of the death.
            return

    async def step(self) -> StepOutput:
        try:
            outputs = await self._llm.engine_core.get_output_async()
        except EngineDeadError as error:
            raise EngineDead((self._group and self._group.loss) or first_line(error)) from error
        self._steps += 1
        self._stats = outputs.scheduler_stats or self._stats
        self._figures.step(outputs)
        arrays = StepArrays()
        for output in outputs.outputs:
            if (id := self._ids.get(output.request_id)) is not None:
                self._collect(arrays, id, output)
        return arrays.freeze()

    def load(self) -> Load:
        turns = len(self._ids) + len(self._checking)
        running = min(self._stats.num_running_reqs, turns)
        return Load(
            running=running,
            waiting=turns - running,
            kv_use=self._stats.kv_cache_usage if turns else 0.0,
            queued_tokens=sum(self._prefills.values()),
            steps=self._steps,
        )

    async def close(self) -> None:
        if self._group is not None:
            self._group.close()
        await asyncio.to_thread(self._llm.shutdown)

    def _collect(self, arrays: StepArrays, id: int, output: EngineCoreOutput) -> None:
        tokens, reason = output.new_token_ids, output.finish_reason
        # Events repeat after a preemption; the first output of a turn is the end of its prefill.
        if begins := self._prefills.pop(id, None) is not None:
            arrays.firsts.append(first(id, output))
        if reason is not None:
            finished = finish(id, reason, tokens, unbegun=begins and id in self._continued)
            arrays.finishes.append(finished)
            tokens = text_of(finished, tokens)
        if tokens:
            arrays.extend(id, tokens)
            if output.new_logprobs is not None:
                arrays.logprobs.append(scored(id, len(tokens), self._logprobs[id], output.new_logprobs))
        if reason is not None:
            self._forget(id)

    def _forget(self, id: int) -> str | None:
        name = self._names.pop(id, None)
        if name is not None:
            del self._ids[name]
            self._figures.forget(name)
            self._prefills.pop(id, None)
            self._logprobs.pop(id, None)
            self._continued.discard(id)
        return name


def open_llm(settings: VllmSettings, place: Place | None = None) -> AsyncLLM:
    """Start the engine processes; 30-60 s of blocking work, to be called in a thread of its own.

    AsyncLLM starts its output handler when an event loop runs in the constructing thread, so this
    must not be called on one.
    """
    with grammar_tokenizer(Path(settings.checkpoint)) as tokenizer:
        llm = AsyncLLM.from_engine_args(engine_args(settings, place, tokenizer), stat_loggers=stat_loggers())
    # The checkpoint's end tokens would end any grammar, and count as stop ids before min_tokens.
    llm.input_processor.generation_config_fields = {}
    return llm


def host_shards(settings: VllmSettings, place: Place) -> None:
    """Run the shards of a further node until one of them ends, which raises EngineDead.

    vLLM's own monitor would first wait for the other shards, and those wait for the one that is gone.
    """
    config = engine_args(settings, place, None).create_engine_config(headless=True)
    shards = [worker.proc for worker in MultiprocExecutor(config, monitor_workers=False).workers]
    multiprocessing.connection.wait([shard.sentinel for shard in shards])
    lost = next(shard for shard in shards if not shard.is_alive())
    for shard in shards:
        shard.kill()
    raise EngineDead(f"shard {lost.name} at {place.address} ended")


def engine_args(settings: VllmSettings, place: Place | None, tokenizer: Path | None) -> AsyncEngineArgs:
    """Prompts arrive as ids and defaults come from the gateway; the tokenizer is for grammars alone."""
    if not (Path(settings.checkpoint) / "config.json").is_file():
        # vLLM would take the path for a name on the hub and complain of its characters.
        raise FileNotFoundError(f"{settings.checkpoint} is no checkpoint folder: it has no config.json")
    cpu = current_platform.is_cpu()
    return AsyncEngineArgs(
        model=settings.checkpoint,
        served_model_name=settings.served_model_name or None,
        tensor_parallel_size=settings.tensor_parallel_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        distributed_executor_backend=executor(settings, cpu),
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        dtype=cpu_dtype(settings) if cpu and settings.dtype == "auto" else settings.dtype,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_dtype=settings.kv_cache_dtype,
        enable_expert_parallel=settings.enable_expert_parallel,
        enforce_eager=cpu if settings.enforce_eager is None else settings.enforce_eager,
        tokenizer=None if tokenizer is None else str(tokenizer),
        skip_tokenizer_init=tokenizer is None,
        structured_outputs_config={"backend": "xgrammar"},
        scheduler_cls="cluster.engine.grammars.scheduler",
        logits_processors=list(settings.logits_processors) or None,
        generation_config="vllm",
        enable_prefix_caching=True,
        enable_log_requests=False,
        **nodes(settings, place),
    )


def cpu_dtype(settings: VllmSettings) -> str:
    """Without AVX-512 bfloat16 is slow, but vLLM's experts of gpt-oss run in nothing else."""
    config = json.loads((Path(settings.checkpoint) / "config.json").read_text())
    return "bfloat16" if config.get("model_type") == "gpt_oss" else "float32"


def nodes(settings: VllmSettings, place: Place | None) -> dict[str, Any]:
    if place is None:
        return {}
    return {
        "nnodes": settings.nodes,
        "node_rank": place.rank,
        "master_addr": place.master,
        "master_port": place.port,
    }


def executor(settings: VllmSettings, cpu: bool) -> str | None:
    """On CPUs vLLM puts a lone shard into a worker process, and engine core and worker then wait for each other
    by spinning, which takes a whole core. The core computes itself instead: on 2 cores a third more tokens/s,
    and streams that are not starved of the core that carries them. It binds no threads, so it leaves one core."""
    if settings.shards > 1:
        return "mp"
    if not cpu or settings.omp_threads_bind != "auto":
        return None
    # Set, not defaulted: Ray gives its workers a value of its own. The engine core's process inherits it.
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) - 1))
    return LONE_SHARD


async def start(
    settings: VllmSettings, place: Place | None = None, elsewhere: "asyncio.Future[str] | None" = None
) -> VllmEngine:
    """Start vLLM and wrap it. Raises EngineDead, naming the cause, when it does not come up.

    With several nodes this is the first; `elsewhere` resolves when another is lost.
    """
    group = Group(elsewhere)
    try:
        llm = await asyncio.to_thread(open_llm, settings, place)
        if settings.pipeline_parallel_size > 1 and current_platform.is_cpu():
            # The later stages make room for what they receive in their first dummy run, which is left out
            # of an eager start on CPUs.
            await llm.collective_rpc("execute_dummy_batch")
    except (RuntimeError, ValueError, OSError, VLLMError) as error:
        group.close()
        raise EngineDead(f"vllm does not start: {group.loss or first_line(error)}") from error
    group.watch("VLLM::")
    return VllmEngine(llm, group)


def with_structure(request: EngineRequest, llm: AsyncLLM) -> EngineRequest:
    """The request with its structural tag as it is compiled. Raises RequestRejected."""
    if llm.model_config.skip_tokenizer_init:
        raise RequestRejected("structural_tag cannot be followed: the checkpoint has no tokenizer.json")
    if not request.stop_ids:
        raise RequestRejected("structural_tag needs stop_ids: the output ends with one of them")
    structure = check_structural_tag(request.structural_tag, request.stop_ids)
    if any(map(has_xgrammar_unsupported_json_features, structure.schemas)):
        raise RequestRejected("structural_tag is invalid: " + COMBINATION)
    begun = request.prompt[len(request.prompt) - request.continued :]
    return replace(request, structural_tag=structure.text(begun))


def describe(llm: AsyncLLM) -> Description:
    config = llm.model_config
    return Description(f"vllm {vllm.__version__}", config.max_model_len, config.get_vocab_size())
