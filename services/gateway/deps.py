"""What the stages need, built once by the composition root (app.py) and passed as one value."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime

from services.backend.directory import Directory
from services.backend.scaling import Scalings
from services.core.clock import Clock, Ids
from services.core.request import Effort, Sampling, Tenant
from services.core.tasks import Tasks
from services.gateway.admission import Admission
from services.gateway.settings import GatewaySettings
from services.gateway.turns import Turns
from services.gateway.validate import ModelLimits
from services.gateway.waiting import WaitingRoom
from services.journal.mirror import Mirrors
from services.journal.port import JournalStore
from services.journal.recorder import Recorder
from services.routing.router import Router
from services.safety.screen import Screen
from services.sessions.port import SessionStore
from services.telemetry.metrics import LinkMeter, TenantLabels, TurnMeter
from services.telemetry.traces import Tracing
from services.tenancy.identify import Keyring
from services.text.family import Family


@dataclass(frozen=True, slots=True)
class ServedModel:
    name: str
    family: Family
    meter: TurnMeter

    def with_defaults(self, asked: Sampling) -> Sampling:
        """The caller's values, the family's where the caller gave none."""
        recommended = self.family.sampling
        return Sampling(
            **{
                f.name: getattr(recommended, f.name) if (value := getattr(asked, f.name)) is None else value
                for f in fields(Sampling)
            }
        )


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
    name: str  # of this gateway; no other one has it
    journals: JournalStore
    recorder: Recorder
    mirrors: Mirrors
    turns: Turns
    waiting: WaitingRoom
    scalings: Scalings
    links: LinkMeter = field(default_factory=LinkMeter)
    tracing: Tracing = field(default_factory=Tracing)
    tenants: TenantLabels = field(default_factory=TenantLabels)
    router: Router = field(default_factory=Router)
    # One long prompt at a time: several would take the cores that carry the streams.
    rendering: asyncio.Lock = field(default_factory=asyncio.Lock)

    def limits(self) -> dict[str, ModelLimits]:
        """Per model what a request may ask for; the context is the smallest of checkpoint and live replicas."""
        return {name: self._limits(name, model.family) for name, model in self.models.items()}

    def _limits(self, name: str, family: Family) -> ModelLimits:
        live = self.directory.context_length(name)
        context = family.context_length if live is None else min(live, family.context_length)
        return ModelLimits(family.vocab_size, context, family.abilities)

    def effort(self, tenant: Tenant, model: str) -> Effort | None:
        """The operator's default for this tenant and model, else for the model; None leaves it to the family."""
        efforts = self.settings.efforts
        return efforts.get(f"{tenant.id}/{model}", efforts.get(model))

    def retention(self, tenant: Tenant) -> float:
        """Seconds that a turn's journal is kept after its end."""
        return self.settings.retentions.get(tenant.id, self.settings.retention)

    def date(self, begun: float) -> str:
        """What a model is told to be today: the operator's date, else the day of the conversation's beginning."""
        day = datetime.fromtimestamp(begun, UTC)
        return self.settings.conversation_date or f"{day:%Y-%m-%d}"

    def salt(self, tenant: str) -> str:
        """Prefix-cache salt: prompts of two tenants never share cache blocks. 64 hex digits."""
        pepper = self.settings.key_pepper.get_secret_value().encode()
        return hmac.new(pepper, b"cache:" + tenant.encode(), hashlib.sha256).hexdigest()
