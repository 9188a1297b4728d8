"""One generation: its journal, its usage, and an ending that happens exactly once."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from services.core.clock import Clock, Deadline
from services.core.errors import Cancelled, Full, HeadraceError
from services.core.events import (
    Durability,
    Ending,
    Event,
    Failed,
    Finished,
    Migrated,
    Started,
    TakenOver,
    Usage,
)
from services.core.outcome import Outcome
from services.core.request import Tenant
from services.gateway.asked import Asked, Kept
from services.journal.memory import MemoryJournal
from services.journal.port import Claim, Record, Verdict
from services.telemetry import metrics
from services.telemetry.logs import log
from services.telemetry.traces import UNTRACED, Trace


@dataclass(slots=True)
class Count:
    """Tokens sampled for one answer; `reasoning` is a part of `completion`."""

    completion: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Turn:
    """Appends to its journal; every RPC that wants it is one of the journal's readers.

    `finish` and `fail` may both be called by whoever notices an ending first; the first call wins.
    """

    id: str
    asked: Asked
    clock: Clock
    deadline: Deadline
    begun: float
    wall: float  # seconds since the epoch when it began
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    started: bool = False
    outcome: Outcome | None = None
    migrations: int = 0  # moves to another replica after the first token
    epoch: int = 0  # of the journal's writer, which this gateway is
    takeovers: int = 0  # moves to another gateway
    counts: list[Count] = field(default_factory=lambda: [Count()])  # one for each answer
    held: ExitStack = field(default_factory=ExitStack)  # what the turn holds until its readers have left
    task: "asyncio.Task[None] | None" = None
    settled: bool = False  # what it held is released
    readers: int = 0
    lonely: asyncio.TimerHandle | None = None  # ends it unless somebody reads it until then
    watched: float = float("-inf")  # when a reader at another gateway was last heard of
    kept: bool = False  # the store has it
    claim: Claim | None = None
    remembered: Kept | None = None  # what another gateway knew of it
    trace: Trace = UNTRACED
    label: str = metrics.OTHER  # its tenant in metrics

    @property
    def tenant(self) -> Tenant:
        return self.asked.tenant

    @property
    def model(self) -> str:
        return self.asked.ask.model

    @property
    def usage(self) -> Usage:
        completion = sum(count.completion for count in self.counts)
        reasoning = sum(count.reasoning for count in self.counts)
        return Usage(
            self.prompt_tokens, completion, self.cached_tokens, reasoning, self.migrations, self.takeovers
        )

    def go_on(self) -> None:
        """Raises CancelledError if the turn has ended: redis-py may swallow the cancel that came with the ending."""
        if self.outcome is not None:
            raise asyncio.CancelledError

    def start(self, prompt_tokens: int, answers: int = 1, dropped: int = 0) -> None:
        self.begin(prompt_tokens, answers)
        self.journal.append(Started(self.id, self.model, prompt_tokens, self.kept, dropped))

    def begin(self, prompt_tokens: int, answers: int) -> None:
        self.prompt_tokens, self.started = prompt_tokens, True
        self.counts = [Count() for _ in range(answers)]

    def append(self, event: Event) -> None:
        """After the ending, what comes is dropped."""
        if self.outcome is None:
            self.journal.append(event)

    def finish(
        self,
        endings: tuple[Ending, ...],
        session_version: int,
        durability: Durability = Durability.UNASKED,
    ) -> None:
        if self._end(Outcome.COMPLETED):
            self.journal.append(self.usage)
            self.journal.append(Finished(endings, session_version, durability))

    def fail(self, error: HeadraceError) -> None:
        if self._end(error.outcome):
            if self.started:
                self.journal.append(self.usage)
            self.journal.append(Failed(error))

    def leave(self, turn: str, error: HeadraceError | None = None) -> None:
        """The turn is another gateway's now, or there is one that stands for it: readers go there."""
        if self.outcome is None:
            self.outcome = Outcome.COMPLETED  # here; how it ends is not known
            self.stop()
            self.trace.event("left")
            self.trace.end()
        self.journal.leave(turn, error)  # also of an ending that the store did not take

    def stop(self) -> None:
        """Ends the turn's work, unless that is what calls."""
        if self.task is not None and asyncio.current_task() is not self.task:
            self.task.cancel()

    def hear(self, verdict: Verdict) -> None:
        """The store's word on what was appended."""
        if verdict is Verdict.FENCED:
            metrics.FENCED.inc()
            self.leave(self.id)
        else:
            self.fail(Cancelled("the turn was cancelled"))

    def bounded(self, most: int) -> Callable[[int], None]:
        """Ends the turn once its journal has more bytes in the store than `most`."""

        def grown(size: int) -> None:
            if size > most:
                self.fail(Full(f"the turn's journal reached its limit of {most} bytes"))

        return grown

    def seen(self, seconds: float) -> None:
        """So long ago, at another gateway, somebody read it."""
        self.watched = max(self.watched, self.clock.monotonic() - seconds)

    def record(self, gateway: str, request: bytes, keep: float) -> Callable[[], Record]:
        """The turn's record as of the call."""
        return lambda: Record(
            turn=self.id,
            tenant=self.tenant.id,
            gateway=gateway,
            epoch=self.epoch,
            request=request,
            seconds=self.deadline.remaining(self.clock) or 0.0,
            keep=keep,
            claim=self.claim,
        )

    def _end(self, outcome: Outcome) -> bool:
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self.stop()
        self._report(outcome, self.clock.monotonic() - self.begun)
        return True

    def _report(self, outcome: Outcome, seconds: float) -> None:
        usage = self.usage
        metrics.TURNS.labels(self.model, outcome).inc()
        metrics.END_TO_END.labels(self.model).observe(seconds)
        self._count(outcome, usage)
        log.info(
            "turn",
            turn=self.id,
            tenant=self.tenant.id,
            key=self.tenant.key,
            model=self.model,
            outcome=outcome,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=usage.completion,
            reasoning_tokens=usage.reasoning,
            cached_tokens=usage.cached,
            migrations=usage.migrations,
            takeovers=usage.takeovers,
            seconds=round(seconds, 3),
            **self.trace.ids,
        )
        self._traced(outcome, usage)

    def _traced(self, outcome: Outcome, usage: Usage) -> None:
        self.trace.put(
            outcome=outcome,
            gen_ai__response__model=self.model,
            gen_ai__usage__input_tokens=usage.prompt,
            gen_ai__usage__output_tokens=usage.completion,
            cached_tokens=usage.cached,
            reasoning_tokens=usage.reasoning,
            migrations=usage.migrations,
            takeovers=usage.takeovers,
        )
        self.trace.end("" if outcome is Outcome.COMPLETED else outcome)

    def _count(self, outcome: Outcome, usage: Usage) -> None:
        metrics.TENANT_TURNS.labels(self.label, self.model, outcome).inc()
        kinds = {"prompt": usage.prompt, "completion": usage.completion, "cached": usage.cached}
        for kind, tokens in kinds.items():
            metrics.TENANT_TOKENS.labels(self.label, self.model, kind).inc(tokens)


def taken_over(turn: Turn, events: Sequence[Event]) -> None:
    """Puts the turn where its journal says that it is, and says that it changed hands."""
    started = next((event for event in events if isinstance(event, Started)), None)
    if started is not None:
        turn.begin(started.prompt_tokens, turn.asked.ask.n)
    turn.migrations = sum(isinstance(event, Migrated) for event in events)
    turn.takeovers = 1 + sum(isinstance(event, TakenOver) for event in events)
    turn.append(TakenOver(turn.epoch))
