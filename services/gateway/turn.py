"""One generation: its journal, its usage, and an ending that happens exactly once."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field

from services.core.clock import Clock, Deadline
from services.core.errors import HeadraceError
from services.core.events import Delta, Failed, Finished, FinishReason, Started, Usage
from services.core.outcome import Outcome
from services.core.request import Tenant
from services.journal.port import Journal
from services.telemetry import metrics
from services.telemetry.logs import log


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
    completion_tokens: int = 0
    cached_tokens: int = 0
    started: bool = False
    outcome: Outcome | None = None
    text: list[str] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)  # what the turn holds until its reader has left

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens)

    def go_on(self) -> None:
        """Raises CancelledError if the turn has ended: redis-py may swallow the cancel that came with the ending."""
        if self.outcome is not None:
            raise asyncio.CancelledError

    def start(self, prompt_tokens: int) -> None:
        self.prompt_tokens, self.started = prompt_tokens, True
        self.journal.append(Started(self.id, self.model, prompt_tokens))

    def deliver(self, text: str, ids: list[int]) -> None:
        """Appends text to the answer; after the ending it is dropped."""
        if self.outcome is None:
            self.text.append(text)
            self.journal.append(Delta(text, ids))

    def finish(self, reason: FinishReason, stop_sequence: str, session_version: int) -> None:
        if self._end(Outcome.COMPLETED):
            self.journal.append(self.usage)
            self.journal.append(Finished(reason, stop_sequence, session_version))

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
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            seconds=round(seconds, 3),
        )
