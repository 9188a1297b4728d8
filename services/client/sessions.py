"""Conversations that the endpoint keeps."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.api.headrace.v1 import sessions_pb2 as pb
from services.client.errors import translated
from services.client.messages import Message, Messages, from_wire, to_wire


@dataclass(frozen=True, slots=True)
class Session:
    """`messages` is empty in a list."""

    id: str
    version: int
    created: datetime
    expires: datetime
    messages: tuple[Message, ...] = ()


def _session(wire: pb.Session) -> Session:
    return Session(
        id=wire.id,
        version=wire.version,
        created=wire.created.ToDatetime(UTC),
        expires=wire.expires.ToDatetime(UTC),
        messages=tuple(from_wire(message) for message in wire.messages),
    )


class Sessions:
    def __init__(self, stub: Any, call: Mapping[str, Any]) -> None:
        self._stub = stub
        self._call = call

    async def create(self, messages: Messages = (), *, ttl: int | None = None) -> Session:
        """`messages` is history to begin with; `ttl` is in seconds since the last turn."""
        async with translated():
            request = pb.CreateSessionRequest(messages=to_wire(messages), ttl_seconds=ttl)
            return _session(await self._stub.Create(request, **self._call))

    async def get(self, id: str) -> Session:
        async with translated():
            return _session(await self._stub.Get(pb.GetSessionRequest(id=id), **self._call))

    async def list(self) -> AsyncIterator[Session]:
        """All of this tenant's, newest first, page by page."""
        token = ""
        while True:
            async with translated():
                request = pb.ListSessionsRequest(page_token=token)
                page = await self._stub.List(request, **self._call)
            for each in page.sessions:
                yield _session(each)
            if not (token := page.next_page_token):
                return

    async def delete(self, id: str) -> None:
        async with translated():
            await self._stub.Delete(pb.DeleteSessionRequest(id=id), **self._call)
