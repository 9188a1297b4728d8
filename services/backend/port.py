"""What the gateway asks of an engine and what it hears back: plain values, no gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.core.request import Sampling


@dataclass(frozen=True, slots=True)
class Order:
    """One turn's work: token ids in, at most `max_tokens` ids out. The last `continued` ids of the prompt are
    output of an order that went before, and a structural tag is followed through them."""

    turn: str
    prompt: Sequence[int]
    max_tokens: int
    min_tokens: int
    stop_ids: tuple[int, ...]
    sampling: Sampling
    cache_salt: str
    structural_tag: str = ""  # xgrammar's JSON; the output follows it
    logprobs: int | None = None  # likeliest ids told for each token, 0..20; None: no log probabilities
    continued: int = 0
    traceparent: str = ""  # of the span that the engine's are under


class Cause(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    ENGINE = "engine"
    FULL = "full"
    DRAINING = "draining"
    LOST = "lost"


class Sink(Protocol):
    """Hears one order, in the event loop, synchronously. `ended` is the last call and comes exactly once."""

    def prefilled(self, cached_tokens: int, queued: float) -> None:
        """The first step of the order: prompt tokens found in the prefix cache, seconds spent in the queue."""
        ...

    def logprobs(self, sampled: Sequence[float], top_ids: Sequence[int], top: Sequence[float]) -> None:
        """For an order that asked, before `tokens` of the same step: the log probability of each token, and
        flattened the likeliest ids at its place with theirs. None is below -9999."""
        ...

    def tokens(self, ids: Sequence[int]) -> None: ...

    def ended(self, cause: Cause, detail: str, stop_id: int) -> None:
        """`stop_id` is the sampled id that ended the order with Cause.STOP, else 0."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """A replica's last word on itself. `kv_use` is a share, 0..1; `queued_tokens` wait for prefill."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    queued_tokens: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A replica as it announces itself."""

    replica: str
    address: str
    model: str
    revision: str
    epoch: int
    capacity: int
    engine: str
    context_length: int


class LeaseSource(Protocol):
    async def read(self) -> Sequence[Lease]:
        """All replicas with a live lease. Raises StoreAway."""
        ...
