"""Everything a call can be refused or ended with.

    HeadraceError
    ├── InvalidRequest      INVALID_ARGUMENT     caller: change the named fields
    ├── Unauthenticated     UNAUTHENTICATED      caller: send a valid key
    ├── NotFound            NOT_FOUND            caller: no such model, session or turn (or another tenant's)
    ├── Conflict            ABORTED              caller: read the session again, then retry
    ├── Precondition        FAILED_PRECONDITION  caller: another idempotency key, or the same request
    ├── OutOfRange          OUT_OF_RANGE         caller: resume from a position that was read
    ├── Forbidden           PERMISSION_DENIED    caller: use a key with the scope that is named
    ├── UnsafeInput         PERMISSION_DENIED    caller: the operator's screen refuses this input
    ├── Full                RESOURCE_EXHAUSTED   caller: retry after the delay
    ├── NoReplica           UNAVAILABLE          retry; operator: no replica of the model lives
    ├── EngineLost          UNAVAILABLE          retry; the replica died under the turn
    ├── StoreAway           UNAVAILABLE          retry; operator: Redis does not answer
    ├── Draining            UNAVAILABLE          retry elsewhere; this gateway is shutting down
    ├── DeadlineExceeded    DEADLINE_EXCEEDED    caller: allow more time
    ├── Cancelled           CANCELLED            the caller went away
    └── Internal            INTERNAL             operator: see the log

The mapping to gRPC statuses is in gateway/boundary.py; a test walks this tree and fails on a class without one.
"""

from dataclasses import dataclass

from services.core.outcome import Outcome

MAX_VIOLATIONS = 16  # reported of one request; the rest is not even looked for


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong: its path in the request, and what would be right."""

    field: str
    description: str


class HeadraceError(Exception):
    """An ending with a name. `message` is shown to the caller: one line, never any content of theirs."""

    outcome: Outcome
    retry_after: float | None = None  # seconds; None: a retry does not help

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry_after is not None:
            self.retry_after = retry_after


class InvalidRequest(HeadraceError):
    outcome = Outcome.INVALID

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


class Unauthenticated(HeadraceError):
    outcome = Outcome.UNAUTHENTICATED


class NotFound(HeadraceError):
    outcome = Outcome.NOT_FOUND


class Conflict(HeadraceError):
    outcome = Outcome.CONFLICT


class Precondition(HeadraceError):
    outcome = Outcome.PRECONDITION


class OutOfRange(HeadraceError):
    outcome = Outcome.OUT_OF_RANGE


class Forbidden(HeadraceError):
    outcome = Outcome.FORBIDDEN


class UnsafeInput(HeadraceError):
    outcome = Outcome.UNSAFE_INPUT


class Full(HeadraceError):
    outcome = Outcome.REFUSED_FULL
    retry_after = 1.0


class NoReplica(HeadraceError):
    outcome = Outcome.NO_REPLICA
    retry_after = 2.0


class EngineLost(HeadraceError):
    outcome = Outcome.ENGINE_LOST
    retry_after = 1.0


class StoreAway(HeadraceError):
    outcome = Outcome.STORE_AWAY
    retry_after: float | None = 2.0


class Draining(HeadraceError):
    outcome = Outcome.DRAINING
    retry_after = 0.5


class DeadlineExceeded(HeadraceError):
    outcome = Outcome.DEADLINE


class Cancelled(HeadraceError):
    outcome = Outcome.CANCELLED


class Internal(HeadraceError):
    outcome = Outcome.INTERNAL
