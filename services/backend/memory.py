"""Leases from a list, and an autoscaler that is not there: for tests, and for a fixed set of replicas without Redis."""

from collections.abc import Iterable, Mapping, Sequence

from services.backend.port import Lease
from services.backend.scaling import Demand, Scaling


class MemoryLeases:
    def __init__(self, *leases: Lease) -> None:
        self.leases = list(leases)

    async def read(self) -> Sequence[Lease]:
        return list(self.leases)


class MemoryScaling:
    def __init__(self) -> None:
        self.demands: dict[str, dict[str, Demand]] = {}  # by gateway and model
        self.scalings: dict[str, Scaling] = {}

    async def publish(self, gateway: str, at: float, demands: Mapping[str, Demand | None]) -> None:
        self.demands[gateway] = {model: demand for model, demand in demands.items() if demand is not None}

    async def read(self, models: Iterable[str]) -> Mapping[str, Scaling]:
        return {model: self.scalings[model] for model in models if model in self.scalings}
