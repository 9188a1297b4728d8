"""Leases from a list: for tests, and for a fixed set of replicas without Redis."""

from collections.abc import Sequence

from services.backend.port import Lease


class MemoryLeases:
    def __init__(self, *leases: Lease) -> None:
        self.leases = list(leases)

    async def read(self) -> Sequence[Lease]:
        return list(self.leases)
