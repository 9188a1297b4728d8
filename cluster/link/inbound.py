"""Submit messages checked before the engine sees them: a bad one costs its sender, not the batch."""

import re
from dataclasses import dataclass
from typing import Any

from cluster.engine.port import Description, EngineRequest, RequestRejected
from cluster.link.v1 import link_pb2 as pb

MAX_STOP_IDS = 64
MAX_STRUCTURAL_TAG = 128 * 1024  # bytes
MAX_LOGPROBS = 20
SALT = re.compile(r"(?:[0-9a-f]{64})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values of a sampling field. NaN lies in no range."""

    low: float
    high: float
    above_low: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above_low and value == self.low)


SAMPLING = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, above_low=True),
    "top_k": Range(0, 2**32 - 1),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 2, above_low=True),
    "seed": Range(0, 2**64 - 1),
}


def to_request(id: int, submit: pb.Submit, engine: Description) -> EngineRequest:
    """The request that `submit` asks for, under the engine's own `id`.

    Raises RequestRejected naming the field that does not hold.
    """
    check_lengths(submit, engine)
    check_ids(submit, engine.vocab_size)
    if SALT.fullmatch(submit.cache_salt) is None:
        raise RequestRejected("cache_salt is not 64 lower-case hex digits")
    if len(submit.structural_tag.encode()) > MAX_STRUCTURAL_TAG:
        raise RequestRejected(f"structural_tag is longer than {MAX_STRUCTURAL_TAG} bytes")
    if submit.logprobs > MAX_LOGPROBS:
        raise RequestRejected(f"logprobs is above {MAX_LOGPROBS}")
    return EngineRequest(
        id=id,
        prompt=list(submit.prompt),
        max_tokens=submit.max_tokens,
        min_tokens=submit.min_tokens,
        stop_ids=tuple(submit.stop_ids),
        cache_salt=submit.cache_salt,
        turn=submit.turn,
        structural_tag=submit.structural_tag,
        logprobs=submit.logprobs if submit.HasField("logprobs") else None,
        continued=submit.continued,
        **sampling_fields(submit.sampling),
    )


def check_lengths(submit: pb.Submit, engine: Description) -> None:
    if not submit.prompt:
        raise RequestRejected("prompt is empty")
    if submit.continued > len(submit.prompt):
        raise RequestRejected("continued is above the length of the prompt")
    if submit.max_tokens < 1:
        raise RequestRejected("max_tokens is 0")
    if submit.min_tokens > submit.max_tokens:
        raise RequestRejected("min_tokens is above max_tokens")
    if len(submit.prompt) + submit.max_tokens > engine.context_length:
        raise RequestRejected(f"prompt and max_tokens exceed the context of {engine.context_length} tokens")


def check_ids(submit: pb.Submit, vocab_size: int) -> None:
    if max(submit.prompt) >= vocab_size:
        raise RequestRejected(f"prompt has an id outside the vocabulary of {vocab_size}")
    if len(submit.stop_ids) > MAX_STOP_IDS:
        raise RequestRejected(f"stop_ids has more than {MAX_STOP_IDS} ids")
    if submit.stop_ids and max(submit.stop_ids) >= vocab_size:
        raise RequestRejected(f"stop_ids has an id outside the vocabulary of {vocab_size}")


def sampling_fields(sampling: pb.Sampling) -> dict[str, Any]:
    """The fields that are present; absent ones keep the engine request's neutral defaults."""
    fields = {field.name: value for field, value in sampling.ListFields()}
    for name, value in fields.items():
        if not SAMPLING[name].holds(value):
            raise RequestRejected(f"sampling.{name} is out of range")
    return fields
