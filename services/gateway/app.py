"""Composition root: the only place that knows which adapter stands behind which port."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from services.backend.directory import Directory
from services.backend.link import LinkState
from services.backend.memory import MemoryScaling
from services.backend.port import Lease, LeaseSource
from services.backend.redis import RedisLeases, RedisScaling
from services.backend.scaling import Demand, ScalingBoard, Scalings
from services.core.clock import Clock, RandomIds, SystemClock
from services.core.errors import StoreAway
from services.core.tasks import Tasks
from services.gateway.admission import Admission
from services.gateway.deps import Deps, ServedModel
from services.gateway.meter import note_breaker, store_call
from services.gateway.settings import GatewaySettings
from services.gateway.turns import Turns
from services.gateway.waiting import WaitingRoom
from services.journal.mirror import Mirrors
from services.journal.port import JournalStore
from services.journal.recorder import Recorder
from services.journal.redis import RedisJournalStore
from services.safety.screen import Screen
from services.sessions.port import SessionStore
from services.sessions.redis import RedisSessionStore
from services.sessions.vault import Vault
from services.store.check import check
from services.store.cipher import AesGcm, Cipher, Plain, derive, master_key
from services.store.connect import Store, connect
from services.telemetry import metrics
from services.telemetry.logs import log
from services.telemetry.traces import tracing
from services.tenancy.identify import Keyring
from services.tenancy.keys import KeyStore
from services.tenancy.redis import RedisKeyStore
from services.text.families import load


@dataclass(slots=True)
class Stores:
    """The adapters behind the ports that keep state."""

    keys: KeyStore
    sessions: SessionStore
    leases: LeaseSource
    journals: JournalStore
    scaling: ScalingBoard = field(default_factory=MemoryScaling)


def redis_stores(client: Store, settings: GatewaySettings) -> Stores:
    sessions = RedisSessionStore(client, SystemClock(), RandomIds(), Vault(master_of(settings)))
    journals = RedisJournalStore(client, ciphers(settings))
    return Stores(
        RedisKeyStore(client), sessions, RedisLeases(client, note_unreadable), journals, RedisScaling(client)
    )


def master_of(settings: GatewaySettings) -> bytes:
    """The master key, empty if there is none."""
    return b"" if settings.master_key is None else master_key(settings.master_key.get_secret_value())


def ciphers(settings: GatewaySettings) -> Callable[[str, str], Cipher]:
    """Each turn's cipher: random nonces last for a turn, and not for all turns of a tenant."""
    if not (master := master_of(settings)):
        return lambda tenant, turn: Plain()
    return lru_cache(4096)(lambda tenant, turn: AesGcm(derive(master, "journal", tenant, turn)))


async def check_store(client: Store) -> None:
    """Raises StoreAway, or ValueError if the store could evict what it was asked to keep."""
    await check(client)


def client_of(settings: GatewaySettings) -> Store:
    url = settings.redis_url.get_secret_value()
    return connect(url, timeout=settings.redis_timeout, on_state=note_breaker, call=store_call)


def build(settings: GatewaySettings, stores: Stores, models: Mapping[str, ServedModel]) -> Deps:
    clock, ids = SystemClock(), RandomIds()
    tasks, links, name = Tasks(on_crash), metrics.LinkMeter(), ids.new("gateway")
    waiting = WaitingRoom(settings.max_held, clock)
    return Deps(
        settings=settings,
        clock=clock,
        ids=ids,
        tasks=tasks,
        keyring=Keyring(stores.keys, settings.key_pepper.get_secret_value().encode(), clock),
        sessions=stores.sessions,
        directory=directory(settings, stores.leases, tasks, links),
        admission=Admission(settings.max_turns, settings.tenant_turns or -(-settings.max_turns * 3 // 4)),
        screen=Screen(settings.screen),
        models=models,
        name=name,
        journals=stores.journals,
        recorder=Recorder(stores.journals, clock),
        mirrors=Mirrors(stores.journals, clock, tasks.start),
        turns=Turns(tasks),
        waiting=waiting,
        scalings=scalings(stores.scaling, name, models, waiting, clock),
        links=links,
        tracing=tracing(settings.otlp_endpoint, settings.trace_ratio),
    )


def scalings(
    board: ScalingBoard, gateway: str, models: Iterable[str], waiting: WaitingRoom, clock: Clock
) -> Scalings:
    def demand(model: str) -> Demand:
        return Demand(waiting.held(model), waiting.refused(model))

    made = Scalings(board, gateway, sorted(models), demand, clock)
    waiting.on_demand = made.stir
    return made


def load_models(paths: Mapping[str, Path]) -> dict[str, ServedModel]:
    """Raises CheckpointError for a model whose tokenizer or template cannot be loaded."""
    return {name: _model(name, path) for name, path in paths.items()}


def directory(
    settings: GatewaySettings, leases: LeaseSource, tasks: Tasks, links: metrics.LinkMeter
) -> Directory:
    return Directory(
        source=leases,
        gateway=f"gateway-{os.getpid()}",
        token=settings.link_token.get_secret_value(),
        tasks=tasks,
        on_change=partial(note_link, links),
    )


def note_unreadable(replica: str) -> None:
    log.warning("unreadable lease", replica=replica)


def note_link(links: metrics.LinkMeter, lease: Lease, state: LinkState, reason: str) -> None:
    if state is LinkState.UP:
        links.connected(lease.model, lease.replica)
    elif state is not LinkState.DRAINING:
        links.down(lease.model, lease.replica)
    log.info("link", replica=lease.replica, model=lease.model, state=state, reason=reason)


def on_crash(name: str, error: BaseException) -> None:
    log.error("task crashed", task=name, exc_info=(type(error), error, error.__traceback__))


def explain_away(error: StoreAway) -> str:
    """One line for an operator: what does not answer, and what to do."""
    why = str(error.__cause__ or error)
    if "AUTH" in why or "password" in why:
        return f"Redis refuses the login ({why}): set user and password in HEADRACE_REDIS_URL"
    return f"Redis does not answer ({why}): start it, or set HEADRACE_REDIS_URL"


def _model(name: str, path: Path) -> ServedModel:
    return ServedModel(name, load(path, SystemClock()), metrics.TurnMeter(name))
