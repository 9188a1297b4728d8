"""Our requests in vLLM's words, and vLLM's outputs in ours."""

import re
from collections.abc import Sequence
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine import EngineCoreEventType, EngineCoreOutput, FinishReason
from vllm.v1.outputs import LogprobsLists

from cluster.engine.port import FLOOR, Cause, EngineRequest, Finished, First, Logprobs

REFUSED = "structural_tag refuses the output that continued tells of"

# Where in its source xgrammar raised.
XGRAMMAR_PLACE = re.compile(r"^\[[^]]*\] \S+: ")


def sampling(request: EngineRequest) -> SamplingParams:
    """Both token limits are always sent: vLLM has died of a min_tokens without a max_tokens."""
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        max_tokens=request.max_tokens,
        min_tokens=request.min_tokens,
        stop_token_ids=list(request.stop_ids),
        ignore_eos=True,
        logprobs=request.logprobs,
        structured_outputs=structured(request),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )


def structured(request: EngineRequest) -> StructuredOutputsParams | None:
    return StructuredOutputsParams(structural_tag=request.structural_tag) if request.structural_tag else None


def first(id: int, output: EngineCoreOutput) -> First:
    cached = output.prefill_stats.num_cached_tokens if output.prefill_stats else 0
    times = {event.type: event.timestamp for event in output.events or ()}
    queued = times.get(EngineCoreEventType.QUEUED, 0.0)
    scheduled = times.get(EngineCoreEventType.SCHEDULED, queued)
    return First(id, cached, int((scheduled - queued) * 1e6))


def scored(id: int, tokens: int, likeliest: int, lists: LogprobsLists) -> Logprobs:
    """The sampled id stands in column 0; the columns after the turn's own are those of another in the batch."""
    ids, values = lists.logprob_token_ids[:tokens], lists.logprobs[:tokens]
    top = slice(1, 1 + likeliest)
    return Logprobs(id, floored(values[:, 0]), ids[:, top].ravel().tolist(), floored(values[:, top].ravel()))


def floored(values: Any) -> list[float]:
    # NaN is above nothing.
    return [value if value > FLOOR else FLOOR for value in values.tolist()]


def text_of(end: Finished, tokens: list[int]) -> list[int]:
    """The last tokens of a turn without a sampled stop id, which is no part of its text, or those with which the
    engine failed: what a grammar refused, no other engine can continue."""
    if end.cause is Cause.STOP:
        return tokens[:-1]
    return tokens if end.cause is Cause.LENGTH else []


def finish(id: int, reason: FinishReason, tokens: Sequence[int], *, unbegun: bool) -> Finished:
    if reason is FinishReason.STOP and tokens:
        return Finished(id, Cause.STOP, stop_id=tokens[-1])
    if reason is FinishReason.LENGTH:
        return Finished(id, Cause.LENGTH)
    return failed(id, str(reason), unbegun=unbegun and not tokens)


def failed(id: int, reason: str, *, unbegun: bool) -> Finished:
    """The core ended a turn by itself. `unbegun`: before the first token of one that goes on in a grammar, which
    means that the grammar refuses what it is to go on after."""
    if unbegun:
        return Finished(id, Cause.REJECTED, detail=REFUSED)
    return Finished(id, Cause.ENGINE, detail=f"the engine ended the turn: {reason}")


def printable(text: str) -> str:
    return "".join(c for c in text[:300] if c.isprintable())


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def refusal(error: Exception) -> str:
    """vLLM says that a structural tag is invalid; xgrammar, whose error is the cause, says why."""
    if error.__cause__ is None:
        return first_line(error)
    reason = XGRAMMAR_PLACE.sub("", first_line(error.__cause__))
    return f"structural_tag is invalid: {printable(reason)}"
