"""How many replicas a model needs, from what its engines say. Pure: what is known goes in, a number and why come out.

wanted = max(turns / target_turns, prompt backlog / prefill rate / TTFT budget, sum of KV use / kv_target) + held turns

in replicas. A replica that says nothing makes two sums of it: `low` of what is known, which may add replicas, and
`high` with the silent replica full, which may not remove any. Replicas that were asked for and do not run yet are
supply already: asking again does not make them load faster.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from cluster.scaling.settings import ScalingSettings
from cluster.scaling.window import Window

SLACK = 1e-9  # of a replica: what floating point adds to a sum is no reason to start one


class Signal(StrEnum):
    TURNS = "turns"
    PREFILL = "prefill"
    KV = "kv"
    HELD = "held"


class Reason(StrEnum):
    """Why `desired` is what it is. The four signals: more replicas, because of that one."""

    STEADY = "steady"
    TURNS = "turns"
    PREFILL = "prefill"
    KV = "kv"
    HELD = "held"
    LESS = "less"  # one replica less would do
    IDLE = "idle"  # no turn for a long time: to zero
    WAKE = "wake"  # from zero, for turns that gateways hold
    BOUNDS = "bounds"  # min_replicas or max_replicas say so


class HeldBecause(StrEnum):
    """Why more or less is wanted, and not or not all of it done."""

    DELAY = "delay"  # not for long enough yet
    PENDING = "pending"  # replicas asked for earlier have to run first
    STEP = "step"  # more than a step at once
    BOUNDS = "bounds"  # at min_replicas or max_replicas
    MISSING = "missing"  # statistics of a replica, or the gateways' count, are missing


@dataclass(frozen=True, slots=True)
class Observation:
    """A running replica's load as of `age_s` seconds ago; `kv_use` is 0..1, `queued_tokens` are not prefilled yet."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    queued_tokens: int = 0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """`wanted` by signal is in replicas, of what is known; `current` replicas run, of which `stale` say nothing."""

    desired: int
    wanted: Mapping[Signal, float]
    reason: Reason
    held_because: HeldBecause | None
    current: int
    stale: int = 0

    def document(self) -> dict[str, Any]:
        """With values that JSON has."""
        return asdict(self) | {"wanted": {str(signal): value for signal, value in self.wanted.items()}}


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision leaves for the next one. A new one delays every change by its full delay."""

    seen_at: float | None = None
    lows: Window = field(default_factory=Window)
    highs: Window = field(default_factory=Window)
    idle_since: float | None = None
    raised_at: float | None = None
    lowered_at: float | None = None

    def document(self) -> dict[str, Any]:
        """With values that JSON has."""
        return asdict(self) | {"lows": list(self.lows.samples), "highs": list(self.highs.samples)}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The memory of a document, also of one that went through JSON."""
        windows = {
            name: Window(tuple((at, value) for at, value in document[name])) for name in ("lows", "highs")
        }
        return cls(**{**document, **windows})


@dataclass(frozen=True, slots=True)
class Demand:
    """In replicas. `low` is certain, `high` counts each silent replica as a full one."""

    wanted: Mapping[Signal, float]
    low: float
    high: float
    current: int
    stale: int
    complete: bool

    @property
    def strongest(self) -> Signal:
        return max(self.wanted, key=lambda signal: self.wanted[signal])


@dataclass(frozen=True, slots=True)
class Move:
    """What one rule says: where to go, why, and what keeps it from going further."""

    desired: int
    reason: Reason
    held_because: HeldBecause | None = None


def decide(
    now: float,
    observations: Sequence[Observation | None],
    target: int,
    held: int | None,
    settings: ScalingSettings,
    memory: Memory,
) -> tuple[Decision, Memory]:
    """What to ask for, and what to remember for the next call.

    `now` is seconds of any clock that the calls share. One observation for each running replica, None where there
    are no statistics. `target` replicas are asked for already, running or not. `held` turns wait in gateways or were
    refused by them lately, None if that is not known. Between two calls there should be less than
    `stale_after_seconds`; after a longer time, or a clock that went back, the memory is not used.
    """
    demand = measure(observations, target, held, settings)
    memory = _remember(now, demand, settings, memory)
    move = _move(now, demand, target, held, settings, memory)
    decision = Decision(
        move.desired, demand.wanted, move.reason, move.held_because, demand.current, demand.stale
    )
    if move.desired > target:
        return decision, replace(memory, raised_at=now)
    if move.desired < target:
        return decision, replace(memory, lowered_at=now)
    return decision, memory


def measure(
    observations: Sequence[Observation | None], target: int, held: int | None, settings: ScalingSettings
) -> Demand:
    known = [each for each in observations if each is not None and each.age_s <= settings.stale_after_seconds]
    stale = len(observations) - len(known)
    tokens_in_budget = settings.prefill_tokens_per_second * settings.ttft_budget_seconds
    wanted = {
        Signal.TURNS: sum(each.running + each.waiting for each in known) / settings.target_turns,
        Signal.PREFILL: sum(each.queued_tokens for each in known) / tokens_in_budget,
        Signal.KV: math.fsum(each.kv_use for each in known) / settings.kv_target,
        Signal.HELD: (held or 0) / settings.target_turns,
    }
    low = max(wanted[Signal.TURNS], wanted[Signal.PREFILL], wanted[Signal.KV]) + wanted[Signal.HELD]
    # Gateways, or replicas of which none has spoken yet, may hold anything.
    silent = held is None or (target > 0 and not known)
    high = max(low + stale, target) if silent else low + stale
    return Demand(wanted, low, high, len(observations), stale, complete=not (silent or stale))


def _remember(now: float, demand: Demand, settings: ScalingSettings, memory: Memory) -> Memory:
    if memory.seen_at is not None and not 0 <= now - memory.seen_at <= settings.stale_after_seconds:
        memory = Memory()
    idle = demand.high == 0
    return replace(
        memory,
        seen_at=now,
        lows=memory.lows.seen(now, demand.low, settings.upscale_delay_seconds, min),
        highs=memory.highs.seen(now, demand.high, settings.downscale_delay_seconds, max),
        idle_since=(now if memory.idle_since is None else memory.idle_since) if idle else None,
    )


def _move(
    now: float, demand: Demand, target: int, held: int | None, settings: ScalingSettings, memory: Memory
) -> Move:
    least, most = settings.min_replicas, settings.max_replicas
    if not least <= target <= most:
        return Move(min(max(target, least), most), Reason.BOUNDS)
    if target == 0:
        return _wake(held)
    if needed(demand.low, settings) > target:
        return _up(now, demand, target, settings, memory)
    if target == 1:
        return _to_zero(now, demand, settings, memory)
    if demand.low < settings.down_at * (target - 1):
        return _down(now, demand, target, settings, memory)
    return Move(target, Reason.STEADY)


def _wake(held: int | None) -> Move:
    if held is None:
        return Move(0, Reason.STEADY, HeldBecause.MISSING)
    return Move(1, Reason.WAKE) if held else Move(0, Reason.STEADY)


def needed(wanted: float, settings: ScalingSettings) -> int:
    """The fewest replicas with which `wanted` is not above `up_at`."""
    return math.ceil(wanted / settings.up_at - SLACK)


def _up(now: float, demand: Demand, target: int, settings: ScalingSettings, memory: Memory) -> Move:
    if target == settings.max_replicas:
        return Move(target, Reason.STEADY, HeldBecause.BOUNDS)
    delay = settings.upscale_delay_seconds
    if not memory.lows.covers(now, delay) or _within(now, memory.raised_at, delay):
        return Move(target, Reason.STEADY, HeldBecause.DELAY)
    lasting = needed(min(memory.lows.values()), settings)
    # Those that run, since a queue that grows while replicas load would ask for more and more.
    running = min(demand.current, target)
    step = max(running + 1, int(settings.growth * running))
    desired = min(lasting, step, settings.max_replicas)
    if desired > target:
        short = HeldBecause.STEP if step < lasting else HeldBecause.BOUNDS if desired < lasting else None
        return Move(desired, Reason(demand.strongest), short)
    return Move(target, Reason.STEADY, HeldBecause.PENDING if lasting > target else HeldBecause.DELAY)


def _down(now: float, demand: Demand, target: int, settings: ScalingSettings, memory: Memory) -> Move:
    if target == settings.min_replicas:
        return Move(target, Reason.STEADY)
    if not demand.complete:
        return Move(target, Reason.STEADY, HeldBecause.MISSING)
    delay = settings.downscale_delay_seconds
    less = max(memory.highs.values()) < settings.down_at * (target - 1)
    if not (less and memory.highs.covers(now, delay)) or _within(now, memory.raised_at, delay):
        return Move(target, Reason.STEADY, HeldBecause.DELAY)
    if _within(now, memory.lowered_at, settings.downscale_step_seconds):
        return Move(target, Reason.STEADY, HeldBecause.STEP)
    return Move(target - 1, Reason.LESS)


def _to_zero(now: float, demand: Demand, settings: ScalingSettings, memory: Memory) -> Move:
    if settings.min_replicas or demand.low:
        return Move(1, Reason.STEADY)
    if not demand.complete:
        return Move(1, Reason.STEADY, HeldBecause.MISSING)
    if memory.idle_since is None or now - memory.idle_since < settings.downscale_to_zero_delay_seconds:
        return Move(1, Reason.STEADY, HeldBecause.DELAY)
    return Move(0, Reason.IDLE)


def _within(now: float, since: float | None, span: float) -> bool:
    return since is not None and now - since < span
