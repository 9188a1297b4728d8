"""Sessions in this process: for one gateway without Redis, and for tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.core.clock import Clock, Ids
from services.core.request import Message
from services.sessions.port import (
    Page,
    Session,
    absent,
    check_bounds,
    check_id,
    check_page,
    conflict,
    place,
    total_bytes,
)


@dataclass(slots=True)
class Kept:
    session: Session
    ttl: float
    text: int
    operation: str = ""


class MemorySessionStore:
    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._tenants: dict[str, dict[str, Kept]] = {}

    async def create(self, tenant: str, messages: Sequence[Message], ttl: float) -> Session:
        text = total_bytes(messages)
        check_bounds(len(messages), text)
        now = self._clock.now()
        session = Session(self._ids.new("session"), 1, tuple(messages), now, now + ttl)
        self._living(tenant)[session.id] = Kept(session, ttl, text)
        return session

    async def get(self, tenant: str, id: str) -> Session:
        return self._kept(tenant, id).session

    async def append(
        self,
        tenant: str,
        id: str,
        expected_version: int,
        messages: Sequence[Message],
        *,
        operation: str = "",
    ) -> int:
        added = total_bytes(messages)
        check_bounds(len(messages), added)
        kept = self._kept(tenant, id)
        before, text = kept.session, kept.text + added
        if operation and operation == kept.operation:
            return before.version
        if before.version != expected_version:
            raise conflict()
        check_bounds(len(before.messages) + len(messages), text)
        after = replace(
            before,
            version=before.version + 1,
            messages=before.messages + tuple(messages),
            expires=self._clock.now() + kept.ttl,
        )
        self._tenants[tenant][id] = Kept(after, kept.ttl, text, operation)
        return after.version

    async def list(self, tenant: str, page_size: int = 0, page_token: str = "") -> Page:
        size = check_page(page_size, page_token)
        places = {place(k.session.created, id): k.session for id, k in self._living(tenant).items()}
        wanted = sorted((p for p in places if not page_token or p < page_token), reverse=True)
        shown = tuple(replace(places[p], messages=()) for p in wanted[:size])
        return Page(shown, wanted[size - 1] if len(wanted) > size else "")

    async def delete(self, tenant: str, id: str) -> None:
        self._kept(tenant, id)
        del self._tenants[tenant][id]

    def _kept(self, tenant: str, id: str) -> Kept:
        check_id(id)
        kept = self._living(tenant).get(id)
        if kept is None:
            raise absent()
        return kept

    def _living(self, tenant: str) -> dict[str, Kept]:
        """The tenant's sessions; those whose time is over go here, so that they take no memory."""
        now = self._clock.now()
        kept = self._tenants.setdefault(tenant, {})
        for id in [id for id, k in kept.items() if k.session.expires <= now]:
            del kept[id]
        return kept
