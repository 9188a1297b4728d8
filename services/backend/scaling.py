"""What the autoscaler and the gateways tell each other: decisions one way, turns that wait for a replica the other."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.core.clock import Clock
from services.core.errors import StoreAway

FORGOTTEN = 60.0  # seconds after which a decision says nothing any more


class Demand(NamedTuple):
    """Turns of a model for which no replica has room: held, and refused within the last seconds."""

    held: int
    refused: int


@dataclass(frozen=True, slots=True)
class Change:
    """Of the number of replicas asked for. `at` is seconds since the epoch."""

    before: int
    after: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """The autoscaler's last decision. `wanted`: replicas that each signal asks for. `changes`: newest first."""

    desired: int
    current: int
    reason: str
    held_because: str
    wanted: Mapping[str, float]
    at: float
    changes: Sequence[Change] = ()


class ScalingBoard(Protocol):
    """Both verbs raise StoreAway."""

    async def publish(self, gateway: str, at: float, demands: Mapping[str, Demand | None]) -> None:
        """This gateway's demand by model as of `at`; None takes back what it said."""
        ...

    async def read(self, models: Iterable[str]) -> Mapping[str, Scaling]:
        """The models of which something is known."""
        ...


@dataclass(slots=True)
class Scalings:
    """Polls the board every `period` seconds, and at once after `stir`. While the store is away, what is known
    stays."""

    board: ScalingBoard
    gateway: str
    models: Sequence[str]
    demand: Callable[[str], Demand]
    clock: Clock
    period: float = 1.0
    _known: Mapping[str, Scaling] = field(default_factory=dict)
    _stirred: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, model: str) -> tuple[Scaling, float] | None:
        """The last decision and its age in seconds."""
        if (known := self._known.get(model)) is None:
            return None
        age = max(0.0, self.clock.now() - known.at)
        return (known, age) if age < FORGOTTEN else None

    def stir(self) -> None:
        self._stirred.set()

    async def watch(self) -> None:
        while True:
            self._stirred.clear()
            await self.refresh()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.period):
                    await self._stirred.wait()

    async def refresh(self) -> None:
        with suppress(StoreAway):
            await self.board.publish(
                self.gateway, self.clock.now(), {model: self.demand(model) for model in self.models}
            )
            self._known = await self.board.read(self.models)

    async def leave(self) -> None:
        """Nobody waits here any more."""
        with suppress(StoreAway):
            await self.board.publish(self.gateway, self.clock.now(), dict.fromkeys(self.models))
