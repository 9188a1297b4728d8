"""Sessions in this process: for one gateway without Redis, and for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.core.clock import Clock, Ids
from services.core.request import Message
from services.sessions.port import (
    MAX_WAITING,
    PATIENCE,
    Page,
    Part,
    Session,
    SessionTurn,
    Summary,
    absent,
    after,
    busy,
    check_bounds,
    check_id,
    check_page,
    check_part,
    check_summary,
    check_version,
    conflict,
    crowded,
    cut,
    first_turns,
    place,
    total_bytes,
)


@dataclass(slots=True)
class Kept:
    session: Session
    ttl: float
    text: int
    operations: dict[str, int] = field(default_factory=dict)  # turn to the version that it made
    writer: str = ""
    until: float = 0.0  # the writer's lease
    waiting: dict[str, float] = field(default_factory=dict)  # turn to when it last asked, in order of arrival


class MemorySessionStore:
    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._tenants: dict[str, dict[str, Kept]] = {}

    async def create(
        self,
        tenant: str,
        messages: Sequence[Message],
        ttl: float,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Session:
        text = total_bytes(messages)
        check_bounds(len(messages), text)
        now = self._clock.now()
        turn = SessionTurn("", 1, now, 0, len(messages), text)
        session = Session(
            self._ids.new("session"), 1, tuple(messages), now, now + ttl, (turn,), dict(metadata or {})
        )
        self._living(tenant)[session.id] = Kept(session, ttl, text)
        return session

    async def get(self, tenant: str, id: str) -> Session:
        return self._kept(tenant, id).session

    async def read(self, tenant: str, id: str, from_version: int = 0, max_turns: int = 0) -> Part:
        most = check_part(max_turns)
        session = self._kept(tenant, id).session
        start = check_version("from_version", from_version, session.version, 1) - 1
        turns = tuple(first_turns(session.turns[start : start + most]))
        messages = session.messages[turns[0].first : turns[-1].first + turns[-1].count]
        return Part(replace(session, turns=turns, messages=messages), after(turns, session.version))

    async def append(
        self,
        tenant: str,
        id: str,
        expected_version: int,
        messages: Sequence[Message],
        *,
        operation: str = "",
        model: str = "",
    ) -> int:
        added = total_bytes(messages)
        check_bounds(len(messages), added)
        kept = self._kept(tenant, id)
        before, now = kept.session, self._clock.now()
        if done := kept.operations.get(operation):
            return done
        if before.version != expected_version:
            raise conflict()
        if (writer := self._writer(kept)) and writer != operation:
            raise busy()
        check_bounds(len(before.messages) + len(messages), kept.text + added)
        version = before.version + 1
        turn = SessionTurn(operation, version, now, len(before.messages), len(messages), added, model)
        kept.session = replace(
            before,
            version=version,
            messages=before.messages + tuple(messages),
            turns=(*before.turns, turn),
            expires=now + kept.ttl,
        )
        kept.text += added
        if operation:
            kept.operations[operation] = version
        return version

    async def fork(self, tenant: str, id: str, at_version: int = 0) -> Session:
        kept, now = self._kept(tenant, id), self._clock.now()
        at = check_version("at_version", at_version, kept.session.version, kept.session.version)
        forked = replace(
            cut(kept.session, at),
            id=self._ids.new("session"),
            created=now,
            expires=now + kept.ttl,
            forked_from=id,
            forked_at=at,
        )
        self._living(tenant)[forked.id] = Kept(forked, kept.ttl, total_bytes(forked.messages))
        return forked

    async def summarize(self, tenant: str, id: str, summary: Summary) -> None:
        kept = self._kept(tenant, id)
        check_summary(summary, len(kept.session.messages))
        if kept.session.summary is None or kept.session.summary.covers < summary.covers:
            kept.session = replace(kept.session, summary=summary)

    async def acquire(self, tenant: str, id: str, turn: str, seconds: float, *, wait: bool = False) -> str:
        kept, now = self._kept(tenant, id), self._clock.now()
        kept.waiting = {each: asked for each, asked in kept.waiting.items() if asked > now - PATIENCE}
        before = self._writer(kept) or next(iter(kept.waiting), turn)
        if before != turn:
            if wait:
                if turn not in kept.waiting and len(kept.waiting) >= MAX_WAITING:
                    raise crowded()
                kept.waiting[turn] = now
            return before
        kept.waiting.pop(turn, None)
        kept.writer, kept.until = turn, now + seconds
        return turn

    async def release(self, tenant: str, id: str, turn: str) -> None:
        check_id(id)
        if kept := self._living(tenant).get(id):
            kept.waiting.pop(turn, None)
            kept.writer = "" if kept.writer == turn else kept.writer

    async def list(self, tenant: str, page_size: int = 0, page_token: str = "") -> Page:
        size = check_page(page_size, page_token)
        places = {place(k.session.created, id): k.session for id, k in self._living(tenant).items()}
        wanted = sorted((p for p in places if not page_token or p < page_token), reverse=True)
        shown = tuple(replace(places[p], messages=(), turns=(), summary=None) for p in wanted[:size])
        return Page(shown, wanted[size - 1] if len(wanted) > size else "")

    async def delete(self, tenant: str, id: str) -> None:
        self._kept(tenant, id)
        del self._tenants[tenant][id]

    def _writer(self, kept: Kept) -> str:
        return kept.writer if kept.until > self._clock.now() else ""

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
