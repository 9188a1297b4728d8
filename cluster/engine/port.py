"""What a replica asks of an engine, and the values that cross that line.

EngineError
├── EngineDead        the engine is gone: every turn on it is lost and the replica must be replaced
└── RequestRejected   this request only: the engine goes on, the caller may change the request
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

# Stands for the log probability of what has none: minus infinity and NaN are no values for a caller.
FLOOR = -9999.0


class EngineError(Exception):
    """Root of the engine's errors. Messages are one line and hold no content of a request."""


class EngineDead(EngineError):
    """The engine is gone and does not come back; start another one."""


class RequestRejected(EngineError):
    """The engine does not take this request; the message names the field."""


class Cause(IntEnum):
    """Why a turn ended. Numbers are those of FinishCause in link.proto."""

    STOP = 1
    LENGTH = 2
    CANCELLED = 3
    REJECTED = 4
    ENGINE = 5
    FULL = 6
    DRAINING = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """A prompt to continue. Sampling fields at their defaults change nothing in the distribution.

    `structural_tag` is an xgrammar structural tag as JSON that the output follows. The output begins with the
    last `continued` ids of the prompt, which another engine sampled. `logprobs` asks for the log probability
    of each token, and of so many likeliest ones at its place.
    """

    id: int
    prompt: list[int]
    max_tokens: int
    min_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    cache_salt: str = ""
    turn: str = ""
    structural_tag: str = ""
    logprobs: int | None = None
    continued: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """End of a turn. `stop_id` counts with STOP, `detail` with REJECTED and ENGINE."""

    id: int
    cause: Cause
    stop_id: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class First:
    """The prefill of a turn ended: prompt tokens served from cache, microseconds spent queued."""

    id: int
    cached_tokens: int
    queued_us: int


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities of a turn's tokens in one step: `sampled` has one for each token, `top_ids` and
    `top` the likeliest ids of each, flattened, likeliest first. None is below FLOOR."""

    id: int
    sampled: Sequence[float]
    top_ids: Sequence[int] = ()
    top: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One engine step as parallel arrays: `counts[i]` tokens belong to `ids[i]`; empty: one each.

    `logprobs` has one value for each turn in `ids` that asked.
    """

    ids: Sequence[int] = ()
    counts: Sequence[int] = ()
    tokens: Sequence[int] = ()
    finishes: Sequence[Finished] = ()
    firsts: Sequence[First] = ()
    logprobs: Sequence[Logprobs] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """Turns in the batch and in the queue, share of KV blocks in use (0..1), prompt tokens not yet
    prefilled, and engine steps so far: `steps` stands still when the engine does."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    queued_tokens: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Description:
    """`name` with version, such as "vllm 0.32.0"; lengths in tokens, prompt and output together."""

    name: str
    context_length: int
    vocab_size: int


@dataclass(slots=True)
class StepArrays:
    """A StepOutput under construction; `counts` is filled only when a turn got more than one token."""

    ids: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finishes: list[Finished] = field(default_factory=list)
    firsts: list[First] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)

    def extend(self, id: int, tokens: Sequence[int]) -> None:
        self.ids.append(id)
        self.counts.append(len(tokens))
        self.tokens.extend(tokens)

    def freeze(self) -> StepOutput:
        counts = () if len(self.tokens) == len(self.ids) else self.counts
        return StepOutput(self.ids, counts, self.tokens, self.finishes, self.firsts, self.logprobs)


class Engine(Protocol):
    """A continuous-batching engine. Ids are the caller's, unique while the turn lives."""

    @property
    def description(self) -> Description: ...

    async def submit(self, request: EngineRequest) -> None:
        """Queue a turn. Raises RequestRejected for this request, EngineDead for all."""

    async def cancel(self, ids: Sequence[int]) -> None:
        """Drop turns and free their blocks; unknown ids are ignored, no Finished follows."""

    async def step(self) -> StepOutput:
        """Wait for the next engine step that has output. One caller only; raises EngineDead."""

    def load(self) -> Load:
        """The load as of the latest step, with turns submitted or cancelled since then counted."""

    async def close(self) -> None:
        """Stop the engine and free its memory; a second call does nothing."""
