"""One generation: its journal, its usage, and an ending that happens exactly once."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field

from services.core.clock import Clock, Deadline
from services.core.errors import HeadraceError
from services.core.events import Ending, Event, Failed, Finished, Started, Usage
from services.core.outcome import Outcome
from services.core.request import Tenant
from services.journal.port import Journal
from services.telemetry import metrics
from services.telemetry.logs import log


@dataclass(slots=True)
class Count:
    """Tokens sampled for one answer; `reasoning` is a part of `completion`."""

    completion: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Turn:
    """Appends to its journal; the RPC that asked for it is one of the journal's readers.

    `finish` and `fail` may both be called by whoever notices an ending first; the first call wins.
    """

    id: str
    journal: Journal
    clock: Clock
    deadline: Deadline
    begun: float
    tenant: Tenant | None = None
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    started: bool = False
    outcome: Outcome | None = None
    migrations: int = 0  # moves to another replica after the first token
    counts: list[Count] = field(default_factory=lambda: [Count()])  # one for each answer
    held: ExitStack = field(default_factory=ExitStack)  # what the turn holds until its reader has left

    @property
    def usage(self) -> Usage:
        completion = sum(count.completion for count in self.counts)
        reasoning = sum(count.reasoning for count in self.counts)
        return Usage(self.prompt_tokens, completion, self.cached_tokens, reasoning, self.migrations)

    def go_on(self) -> None:
        """Raises CancelledError if the turn has ended: redis-py may swallow the cancel that came with the ending."""
        if self.outcome is not None:
            raise asyncio.CancelledError

    def start(self, prompt_tokens: int, answers: int = 1) -> None:
        self.prompt_tokens, self.started = prompt_tokens, True
        self.counts = [Count() for _ in range(answers)]
        self.journal.append(Started(self.id, self.model, prompt_tokens))

    def append(self, event: Event) -> None:
        """After the ending, what comes is dropped."""
        if self.outcome is None:
            self.journal.append(event)

    def finish(self, endings: tuple[Ending, ...], session_version: int) -> None:
        if self._end(Outcome.COMPLETED):
            self.journal.append(self.usage)
            self.journal.append(Finished(endings, session_version))

    def fail(self, error: HeadraceError) -> None:
        if self._end(error.outcome):
            if self.started:
                self.journal.append(self.usage)
            self.journal.append(Failed(error))

    def _end(self, outcome: Outcome) -> bool:
        if self.outcome is not None:
            return False
        self.outcome = outcome
        if self.model:  # a refusal before the model is known would be a turn of no model
            self._report(outcome, self.clock.monotonic() - self.begun)
        return True

    def _report(self, outcome: Outcome, seconds: float) -> None:
        usage = self.usage
        metrics.TURNS.labels(self.model, outcome).inc()
        metrics.END_TO_END.labels(self.model).observe(seconds)
        log.info(
            "turn",
            turn=self.id,
            tenant=self.tenant and self.tenant.id,
            key=self.tenant and self.tenant.key,
            model=self.model,
            outcome=outcome,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=usage.completion,
            reasoning_tokens=usage.reasoning,
            cached_tokens=usage.cached,
            migrations=usage.migrations,
            seconds=round(seconds, 3),
        )
