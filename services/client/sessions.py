"""Conversations that the endpoint keeps."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from services.api.headrace.v1 import sessions_pb2 as pb
from services.client.errors import translated
from services.client.messages import Message, Messages, from_wire, to_wire


@dataclass(frozen=True, slots=True)
class SessionTurn:
    """What one turn added. `turn` is empty for what the session was created with."""

    turn: str
    version: int  # of the session after it
    created: datetime
    model: str
    first_message: int  # index in the session's history
    message_count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the context policy `summarize` shows the model in place of the first messages."""

    message_count: int
    text: str


@dataclass(frozen=True, slots=True)
class Session:
    """A list has no messages, turns and summaries; nor has what `fork` returns."""

    id: str
    version: int
    created: datetime
    expires: datetime
    messages: tuple[Message, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[SessionTurn, ...] = ()
    forked_from: str = ""
    forked_at: int = 0  # version of that session
    summary: Summary | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """One turn of an export, with its messages."""

    turn: SessionTurn
    messages: tuple[Message, ...]


class Sessions:
    def __init__(self, stub: Any, call: Mapping[str, Any]) -> None:
        self._stub = stub
        self._call = call

    async def create(
        self,
        messages: Messages = (),
        *,
        ttl: int | None = None,
        system: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Session:
        """`messages` is history to begin with; `ttl` is in seconds since the last turn; `system` becomes the first
        message; `metadata` comes back with the session."""
        async with translated():
            request = pb.CreateSessionRequest(
                messages=to_wire(messages), ttl_seconds=ttl, system=system, metadata=metadata
            )
            return _session([await self._stub.Create(request, **self._call)])

    async def get(self, id: str, *, from_version: int = 0) -> Session:
        """The session with its turns from that version on, all of them by default, read in parts."""
        parts: list[pb.Session] = []
        while not parts or parts[-1].next_version:
            start = parts[-1].next_version if parts else from_version
            async with translated():
                request = pb.GetSessionRequest(id=id, from_version=start)
                parts.append(await self._stub.Get(request, **self._call))
        return _session(parts)

    async def list(self) -> AsyncIterator[Session]:
        """All of this tenant's, newest first, page by page."""
        token = ""
        while True:
            async with translated():
                request = pb.ListSessionsRequest(page_token=token)
                page = await self._stub.List(request, **self._call)
            for each in page.sessions:
                yield _session([each])
            if not (token := page.next_page_token):
                return

    async def fork(self, id: str, at_version: int = 0) -> Session:
        """A new session with the history up to and including that version; 0 is the newest."""
        async with translated():
            request = pb.ForkSessionRequest(id=id, at_version=at_version)
            return _session([await self._stub.Fork(request, **self._call)])

    async def export(self, id: str) -> AsyncIterator[Session | Exported]:
        """All that is kept: the session without turns first, then each of its turns."""
        call = self._stub.Export(pb.ExportSessionRequest(id=id), **self._call)
        try:
            async with translated():
                async for part in call:
                    if part.WhichOneof("part") == "session":
                        yield _session([part.session])
                    else:
                        yield Exported(_turn(part.turn.turn), tuple(map(from_wire, part.turn.messages)))
        finally:
            call.cancel()  # of use only to a caller who left early

    async def delete(self, id: str) -> None:
        async with translated():
            await self._stub.Delete(pb.DeleteSessionRequest(id=id), **self._call)


def _session(parts: list[pb.Session]) -> Session:
    """One session of its consecutive parts; what is not in parts is as the last one has it."""
    wire = parts[-1]
    summary = Summary(wire.summary.message_count, wire.summary.text) if wire.HasField("summary") else None
    return Session(
        id=wire.id,
        version=wire.version,
        created=wire.created.ToDatetime(UTC),
        expires=wire.expires.ToDatetime(UTC),
        messages=tuple(from_wire(message) for part in parts for message in part.messages),
        metadata=dict(wire.metadata),
        turns=tuple(_turn(turn) for part in parts for turn in part.turns),
        forked_from=wire.forked_from,
        forked_at=wire.forked_at,
        summary=summary,
    )


def _turn(wire: pb.SessionTurn) -> SessionTurn:
    return SessionTurn(
        turn=wire.turn,
        version=wire.version,
        created=wire.created.ToDatetime(UTC),
        model=wire.model,
        first_message=wire.first_message,
        message_count=wire.message_count,
    )
