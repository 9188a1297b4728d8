"""headrace.v1.Sessions: conversations of the calling tenant."""

from typing import Any

import grpc

from services.api.headrace.v1 import sessions_pb2 as pb
from services.api.headrace.v1 import sessions_pb2_grpc
from services.core.errors import InvalidRequest, Violation
from services.core.request import Scope
from services.gateway import wire
from services.gateway.deps import Deps
from services.gateway.metadata import authorization
from services.gateway.validate import validate_history
from services.sessions.port import Session

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_TTL, MIN_TTL, MAX_TTL = 86_400, 60, 2_592_000  # seconds


class Sessions(sessions_pb2_grpc.SessionsServicer):
    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def Create(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        tenant = await self._deps.keyring.identify(authorization(context))
        history = validate_history(request.messages)
        self._deps.screen.check(history)
        return _wire(await self._deps.sessions.create(tenant.id, history, _ttl(request)))

    async def Get(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        tenant = await self._deps.keyring.identify(authorization(context))
        session = await self._deps.sessions.get(tenant.id, request.id)
        return _wire(session, shows_reasoning=Scope.REASONING in tenant.scopes)

    async def List(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        tenant = await self._deps.keyring.identify(authorization(context))
        page = await self._deps.sessions.list(tenant.id, request.page_size, request.page_token)
        return pb.ListSessionsResponse(
            sessions=[_wire(session, with_messages=False) for session in page.sessions],
            next_page_token=page.next_page_token,
        )

    async def Delete(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        tenant = await self._deps.keyring.identify(authorization(context))
        await self._deps.sessions.delete(tenant.id, request.id)
        return pb.DeleteSessionResponse()


def _ttl(request: pb.CreateSessionRequest) -> int:
    ttl = request.ttl_seconds if request.HasField("ttl_seconds") else DEFAULT_TTL
    if not MIN_TTL <= ttl <= MAX_TTL:
        raise InvalidRequest(Violation("ttl_seconds", f"{MIN_TTL} to {MAX_TTL} seconds; {ttl} was sent"))
    return ttl


def _wire(session: Session, *, with_messages: bool = True, shows_reasoning: bool = False) -> pb.Session:
    message = pb.Session(id=session.id, version=session.version)
    message.created.FromMilliseconds(round(session.created * 1000))
    message.expires.FromMilliseconds(round(session.expires * 1000))
    for said in session.messages if with_messages else ():
        message.messages.append(wire.message(said, shows_reasoning=shows_reasoning))
    return message
