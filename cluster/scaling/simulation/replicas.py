"""Replicas as a fluid. Those that started together are one group, in the state of their mean; groups that have become
alike are one. What the mean leaves out, the steps of one engine with its prompts drawn one by one, is a chain that a
group carries along: each of its steps stands for many.
"""

import math
import random
from dataclasses import dataclass

from cluster.engine.timing import BLOCK_TOKENS, SimTiming
from cluster.scaling.law import Observation
from cluster.scaling.simulation.traffic import Lengths, poisson

DRAWN_STEPS = 6  # of the chain, for each tick
MOST_ARRIVED = 200  # in one step of the chain
MOST_CARRIED = 131_072  # prompt tokens; beyond, the mean's backlog tells the wait


@dataclass(frozen=True, slots=True)
class Kind:
    """What all replicas share. `capacity` turns are accepted at most, running and waiting."""

    timing: SimTiming
    lengths: Lengths
    capacity: int

    def throughput(self, turns: float) -> float:
        """Turns per second of a replica that holds so many: each takes its steps, and all take each prompt's time."""
        running = min(turns, self.timing.max_num_seqs)
        decode = self.lengths.answer_mean * self.timing.step_seconds(running, 0)
        prompts = running * self.lengths.prompt_mean / self.timing.prefill_tokens_per_s
        return running / (decode + prompts)


@dataclass(slots=True)
class Group:
    """Numbers are of one replica. `decoding` has the turns of each kind of answer; `line` those before their first
    token, of `backlog` prompt tokens."""

    kind: Kind
    replicas: int
    born: float
    decoding: list[float]
    line: float = 0.0
    backlog: float = 0.0
    arriving: float = 0.0  # turns per second, of the last tick
    step: float = 0.0  # seconds of the chain's last step
    carried: float = 0.0  # prompt tokens that the chain's last step had no room for

    @property
    def turns(self) -> float:
        return self.line + sum(self.decoding)

    @property
    def running(self) -> float:
        return sum(self.decoding) + self.admitted

    @property
    def admitted(self) -> float:
        """Turns of the line that have a slot and blocks."""
        timing = self.kind.timing
        slots = timing.max_num_seqs - sum(self.decoding)
        free = timing.kv_blocks * BLOCK_TOKENS - self._tokens(0.0)
        return max(0.0, min(self.line, slots, free / self._tokens_of_one()))

    def _tokens_of_one(self) -> float:
        return self.kind.lengths.prompt_mean + self.kind.lengths.answer_mean

    def _tokens(self, admitted: float) -> float:
        """In KV blocks. Of an exponential length the turns in progress have twice the mean, for the long ones stay."""
        lengths = self.kind.lengths
        answers = zip(self.decoding, lengths.answers, strict=True)
        held = sum(count * (lengths.prompt_mean + 2 * mean) for count, (_, mean) in answers)
        return held + admitted * self._tokens_of_one()

    def flow(self, seconds: float) -> None:
        """Compute prompts and tokens for so long."""
        timing, lengths = self.kind.timing, self.kind.lengths
        admitted, decoding = self.admitted, sum(self.decoding)
        full = timing.step_seconds(decoding + admitted, timing.max_batch_tokens)
        ready = self.backlog * admitted / self.line if self.line else 0.0
        prompts = min(ready, timing.max_batch_tokens / full * seconds)
        begun = self.line * prompts / self.backlog if self.backlog else 0.0
        base = timing.step_seconds(decoding + admitted - begun, 0)
        steps = (seconds - prompts / timing.prefill_tokens_per_s) / base
        self.line, self.backlog = self.line - begun, self.backlog - prompts
        for place, (share, mean) in enumerate(lengths.answers):
            stay = math.exp(-steps / mean)
            # Those that begin do so at any time of it.
            self.decoding[place] = self.decoding[place] * stay + begun * share * (1 - stay) * mean / steps

    def observation(self, age_s: float) -> Observation:
        admitted = self.admitted
        # The mean's backlog is empty after each tick; at any moment the prompts of one step wait.
        queued = self.backlog + self.arriving * self.kind.lengths.prompt_mean * self.mean_step()
        return Observation(
            running=round(self.running),
            waiting=round(self.line - admitted),
            kv_use=min(1.0, self._tokens(admitted) / (self.kind.timing.kv_blocks * BLOCK_TOKENS)),
            queued_tokens=round(queued),
            age_s=age_s,
        )

    def mean_step(self) -> float:
        timing, lengths = self.kind.timing, self.kind.lengths
        busy = min(0.97, self.arriving * lengths.prompt_mean / timing.prefill_tokens_per_s)
        return timing.step_seconds(self.running, 0) / (1 - busy)

    def wait(self) -> float:
        """Seconds until what is in line before a new turn is computed, beside the steps that the chain knows."""
        admitted = self.admitted
        queued = (self.line - admitted) / self.kind.throughput(self.turns) if self.line > admitted else 0.0
        share = admitted / self.line if self.line else 0.0
        return queued + self.backlog * share / self.kind.timing.prefill_tokens_per_s

    def chain(self, rng: random.Random) -> list[float]:
        """Seconds to the first token of turns that arrive in DRAWN_STEPS steps of one replica, without `wait`."""
        timing, times = self.kind.timing, []
        for _ in range(DRAWN_STEPS):
            step = self.step or self.mean_step()
            arrived = poisson(min(self.arriving * step, MOST_ARRIVED), rng)
            before = self.carried
            for _ in range(arrived):
                before += self.kind.lengths.prompt(rng)
                times.append(rng.random() * step + self._computed(before))
            computed = min(before, timing.max_batch_tokens)
            self.carried = min(before - computed, MOST_CARRIED)
            self.step = timing.step_seconds(self.running, computed)
        return times

    def _computed(self, tokens: float) -> float:
        """Seconds of the steps that so many prompt tokens take."""
        timing = self.kind.timing
        steps = math.ceil(tokens / timing.max_batch_tokens)
        return steps * timing.step_seconds(self.running, 0) + tokens / timing.prefill_tokens_per_s
