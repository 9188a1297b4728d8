"""Where what happens in other rooms becomes figures: they know nothing of telemetry, and call back."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

from prometheus_client import Histogram

from services.core.errors import HeadraceError
from services.core.outcome import Outcome
from services.gateway.deps import Deps
from services.store.breaker import State
from services.telemetry import metrics
from services.telemetry.logs import log


def note_breaker(server: str, state: State) -> None:
    metrics.STORE_BREAKER.labels(server).set(state is State.OPEN)
    log.warning("store breaker", server=server, state=state)


@cache
def _calls(operation: str) -> Histogram:
    return metrics.STORE_SECONDS.labels(operation)


def store_call(operation: str) -> AbstractContextManager[object]:
    """Around one call to the store; failed ones count too."""
    timer: AbstractContextManager[object] = _calls(operation).time()
    return timer


@contextmanager
def session_write() -> Iterator[None]:
    """Around what changes a session."""
    try:
        yield
    except HeadraceError as error:
        metrics.SESSION_WRITES.labels(error.outcome).inc()
        raise
    metrics.SESSION_WRITES.labels(Outcome.COMPLETED).inc()


def gauge(deps: Deps, before: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Sets what is looked at once a second. Takes and returns the replicas that were there."""
    metrics.CAPACITY.set(deps.settings.max_turns)
    metrics.STORE_UP.set(not deps.directory.store_away)
    metrics.JOURNAL_LAG.set(deps.recorder.lag)
    links = {(link.lease.model, link.lease.replica): link for link in deps.directory.links()}
    for labels, link in links.items():
        metrics.LINK_ROUND_TRIP.labels(*labels).set(link.round_trip)
        metrics.ENGINE_RUNNING.labels(*labels).set(link.load.running)
        metrics.ENGINE_WAITING.labels(*labels).set(link.load.waiting)
        metrics.ENGINE_KV_USE.labels(*labels).set(link.load.kv_use)
    for labels in before - set(links):
        deps.links.forget(*labels)
    return set(links)
