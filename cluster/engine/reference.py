"""The engine port over AsyncLLM.generate: the plain way, with a task per turn.

It is the reference that the step-wise adapter is compared with, and what to fall back to when a new
vLLM moves the internals that adapter reads.
"""

import asyncio
from collections.abc import Sequence

from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.logprobs import Logprob
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from cluster.engine.port import (
    FLOOR,
    Cause,
    EngineDead,
    EngineRequest,
    Finished,
    First,
    Load,
    Logprobs,
    RequestRejected,
    StepArrays,
    StepOutput,
)
from cluster.engine.translate import failed, first_line, refusal, sampling
from cluster.engine.vllm import describe, with_structure


class ReferenceEngine:
    """Every output of every turn becomes a step of its own; the load knows no batch."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._turns: dict[int, asyncio.Task[None]] = {}
        self._prefills: dict[int, int] = {}
        self._outputs: asyncio.Queue[StepOutput | EngineDead] = asyncio.Queue()
        self._steps = 0
        self.description = describe(llm)

    async def submit(self, request: EngineRequest) -> None:
        self._prefills[request.id] = len(request.prompt)
        self._turns[request.id] = asyncio.create_task(self._generate(request))

    async def cancel(self, ids: Sequence[int]) -> None:
        turns = [turn for id in ids if (turn := self._forget(id)) is not None]
        for turn in turns:
            turn.cancel()
        if turns:
            await asyncio.wait(turns)

    async def step(self) -> StepOutput:
        output = await self._outputs.get()
        if isinstance(output, EngineDead):
            raise output
        self._steps += 1
        return output

    def load(self) -> Load:
        queued = sum(self._prefills.values())
        return Load(running=len(self._turns), queued_tokens=queued, steps=self._steps)

    async def close(self) -> None:
        await self.cancel(list(self._turns))
        await asyncio.to_thread(self._llm.shutdown)

    async def _generate(self, request: EngineRequest) -> None:
        if request.structural_tag:
            try:
                request = with_structure(request, self._llm)
            except RequestRejected as rejection:
                self._end(request.id, Cause.REJECTED, str(rejection))
                return
        prompt = tokens_input(request.prompt, cache_salt=request.cache_salt or None)
        try:
            async for output in self._llm.generate(prompt, sampling(request), str(request.id)):
                self._outputs.put_nowait(self._translate(request, output))
        except EngineDeadError as error:
            self._outputs.put_nowait(EngineDead(first_line(error)))
        except (VLLMClientError, ValueError) as error:
            self._end(request.id, Cause.REJECTED, refusal(error))
        except EngineGenerateError as error:
            self._end(request.id, Cause.ENGINE, first_line(error))

    def _translate(self, request: EngineRequest, output: RequestOutput) -> StepOutput:
        id, completion = request.id, output.outputs[0]
        tokens = list(completion.token_ids)
        arrays = StepArrays()
        if begins := self._prefills.pop(id, None) is not None:
            arrays.firsts.append(First(id, output.num_cached_tokens or 0, 0))
        if completion.finish_reason == "stop":
            arrays.finishes.append(Finished(id, Cause.STOP, stop_id=tokens.pop()))
        elif completion.finish_reason == "length":
            arrays.finishes.append(Finished(id, Cause.LENGTH))
        elif completion.finish_reason is not None:
            unbegun = begins and not tokens and request.continued > 0 and request.structural_tag != ""
            arrays.finishes.append(failed(id, completion.finish_reason, unbegun=unbegun))
            tokens = []
        if tokens:
            arrays.extend(id, tokens)
            if completion.logprobs is not None and request.logprobs is not None:
                arrays.logprobs.append(scored(id, tokens, request.logprobs, completion.logprobs))
        if output.finished:
            self._forget(id)
        return arrays.freeze()

    def _end(self, id: int, cause: Cause, detail: str) -> None:
        self._forget(id)
        self._outputs.put_nowait(StepOutput(finishes=(Finished(id, cause, detail=detail),)))

    def _forget(self, id: int) -> asyncio.Task[None] | None:
        self._prefills.pop(id, None)
        return self._turns.pop(id, None)


def scored(id: int, tokens: Sequence[int], likeliest: int, places: Sequence[dict[int, Logprob]]) -> Logprobs:
    """Each place has the sampled id and the likeliest ones, which have ranks from 1."""
    ranked = [sorted(place.items(), key=lambda entry: entry[1].rank)[:likeliest] for place in places]
    top = [entry for place in ranked[: len(tokens)] for entry in place]
    return Logprobs(
        id,
        [max(place[token].logprob, FLOOR) for token, place in zip(tokens, places, strict=False)],
        [token for token, _ in top],
        [max(value.logprob, FLOOR) for _, value in top],
    )
