"""What the stages need, built once by the composition root (app.py) and passed as one value."""

import asyncio
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from services.backend.directory import Directory
from services.core.clock import Clock, Ids
from services.core.errors import HeadraceError
from services.core.request import Ask, Sampling, Tenant
from services.core.tasks import Tasks
from services.gateway.admission import Admission
from services.gateway.settings import GatewaySettings
from services.gateway.turn import Turn
from services.gateway.validate import ModelLimits
from services.safety.screen import Screen
from services.sessions.port import SessionStore
from services.telemetry import metrics
from services.telemetry.metrics import TurnMeter
from services.tenancy.identify import Keyring
from services.text.checkpoint import Checkpoint
from services.text.detokenize import Detokenizer
from services.text.template import Renderer


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's text side: its tokenizer, template and recommended sampling."""

    name: str
    checkpoint: Checkpoint
    renderer: Renderer
    meter: TurnMeter
    longest_token: int | None = None  # bytes, see Checkpoint

    def detokenizer(self) -> Detokenizer:
        return Detokenizer(self.checkpoint)

    def with_defaults(self, asked: Sampling) -> Sampling:
        """The caller's values, the checkpoint's where the caller gave none."""
        recommended = self.checkpoint.sampling
        return Sampling(
            **{
                f.name: getattr(recommended, f.name) if (value := getattr(asked, f.name)) is None else value
                for f in fields(Sampling)
            }
        )


class Turns:
    """The turns that run in this worker."""

    def __init__(self) -> None:
        self._running: dict[str, Turn] = {}

    @contextmanager
    def claim(self, turn: Turn, tenant: Tenant, ask: Ask) -> Iterator[None]:
        """Binds the turn to its tenant and model for as long as it runs."""
        turn.tenant, turn.model = tenant, ask.model
        self._running[turn.id] = turn
        metrics.IN_FLIGHT.inc()
        try:
            yield
        finally:
            metrics.IN_FLIGHT.dec()
            del self._running[turn.id]

    def fail_all(self, error: HeadraceError) -> int:
        """Ends every running turn; returns how many there were."""
        for turn in (running := list(self._running.values())):
            turn.fail(error)
        return len(running)


@dataclass(slots=True)
class Deps:
    settings: GatewaySettings
    clock: Clock
    ids: Ids
    tasks: Tasks
    keyring: Keyring
    sessions: SessionStore
    directory: Directory
    admission: Admission
    screen: Screen
    models: Mapping[str, ServedModel]
    turns: Turns = field(default_factory=Turns)
    # One long prompt at a time: several would take the cores that carry the streams.
    rendering: asyncio.Lock = field(default_factory=asyncio.Lock)

    def limits(self) -> dict[str, ModelLimits]:
        """Per model what a request may ask for; the context is the smallest of checkpoint and live replicas."""
        return {name: self._limits(name, model.checkpoint) for name, model in self.models.items()}

    def _limits(self, name: str, checkpoint: Checkpoint) -> ModelLimits:
        live = self.directory.context_length(name)
        context = checkpoint.context_length if live is None else min(live, checkpoint.context_length)
        return ModelLimits(checkpoint.vocab_size, context)

    def salt(self, tenant: str) -> str:
        """Prefix-cache salt: prompts of two tenants never share cache blocks. 64 hex digits."""
        pepper = self.settings.key_pepper.get_secret_value().encode()
        return hmac.new(pepper, b"cache:" + tenant.encode(), hashlib.sha256).hexdigest()
