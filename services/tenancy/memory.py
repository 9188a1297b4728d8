"""Keys in this process: for one gateway without Redis, and for tests."""

from dataclasses import replace

from services.tenancy.keys import KeyRecord


class MemoryKeyStore:
    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}

    async def put(self, record: KeyRecord) -> None:
        self._records[record.id] = record

    async def get(self, id: str) -> KeyRecord | None:
        return self._records.get(id)

    async def list(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        records = [r for r in self._records.values() if tenant is None or r.tenant == tenant]
        return tuple(sorted(records, key=lambda r: (r.created, r.id)))

    async def revoke(self, id: str) -> bool:
        record = self._records.get(id)
        if record is not None:
            self._records[id] = replace(record, revoked=True)
        return record is not None
