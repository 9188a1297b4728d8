"""headrace.v1.Sessions: conversations of the calling tenant."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2, sessions_pb2_grpc
from services.api.headrace.v1 import sessions_pb2 as pb
from services.core.errors import InvalidRequest, Violation
from services.core.request import Scope, Tenant
from services.gateway import wire
from services.gateway.deps import Deps
from services.gateway.metadata import authorization
from services.gateway.meter import session_write
from services.gateway.validate import refuse_any, validate_history
from services.sessions.port import Part, Session, SessionTurn

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_TTL, MIN_TTL = 86_400, 60  # seconds
MAX_PAIRS = 16
KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
MAX_VALUE = 512  # bytes


class Sessions(sessions_pb2_grpc.SessionsServicer):
    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def Create(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        tenant = await self._tenant(context)
        refuse_any(_metadata(request.metadata), _system(request.system))
        ttl = _ttl(request, self._deps.settings.session_ttl_limit)
        history = validate_history([*_system_message(request.system), *request.messages])
        self._deps.screen.check(history, request.metadata.values())
        with session_write():
            session = await self._deps.sessions.create(
                tenant.id, history, ttl, metadata=dict(request.metadata)
            )
        return _whole(session, tenant)

    async def Get(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        tenant = await self._tenant(context)
        part = await self._deps.sessions.read(tenant.id, request.id, request.from_version, request.max_turns)
        message = _whole(part.session, tenant)
        message.next_version = part.next_version
        return message

    async def List(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        tenant = await self._tenant(context)
        page = await self._deps.sessions.list(tenant.id, request.page_size, request.page_token)
        return pb.ListSessionsResponse(
            sessions=[_head(session) for session in page.sessions], next_page_token=page.next_page_token
        )

    async def Fork(self, request: pb.ForkSessionRequest, context: Context) -> pb.Session:
        """The answer has no messages: the caller may have them, and they may be many."""
        tenant = await self._tenant(context)
        with session_write():
            return _head(await self._deps.sessions.fork(tenant.id, request.id, request.at_version))

    async def Export(self, request: pb.ExportSessionRequest, context: Context) -> None:
        tenant = await self._tenant(context)
        async for part in _exported(self._deps, tenant, request.id):
            await context.write(part)

    async def Delete(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        tenant = await self._tenant(context)
        with session_write():
            await self._deps.sessions.delete(tenant.id, request.id)
        return pb.DeleteSessionResponse()

    async def _tenant(self, context: Context) -> Tenant:
        return await self._deps.keyring.identify(authorization(context))


async def _exported(deps: Deps, tenant: Tenant, id: str) -> AsyncIterator[pb.SessionPart]:
    """The session as it is when the export begins; what is appended meanwhile is left out."""
    part = await deps.sessions.read(tenant.id, id)
    version, head = part.session.version, _head(part.session)
    _summary(head, part.session)
    yield pb.SessionPart(session=head)
    while True:
        for turn in _turns(part, tenant):
            if turn.turn.version > version:
                return
            yield pb.SessionPart(turn=turn)
        if not 0 < part.next_version <= version:
            return
        part = await deps.sessions.read(tenant.id, id, part.next_version)


def _turns(part: Part, tenant: Tenant) -> Iterator[pb.ExportedTurn]:
    session = part.session
    for turn in session.turns:
        start = turn.first - session.turns[0].first
        said = session.messages[start : start + turn.count]
        yield pb.ExportedTurn(
            turn=_turn(turn),
            messages=[wire.message(m, shows_reasoning=Scope.REASONING in tenant.scopes) for m in said],
        )


def _metadata(metadata: Mapping[str, str]) -> Iterator[Violation]:
    if len(metadata) > MAX_PAIRS:
        yield Violation("metadata", f"at most {MAX_PAIRS} pairs; {len(metadata)} were sent")
        return
    for i, key in enumerate(sorted(metadata)):
        # A key that is refused is not repeated, so its place among them names it.
        if not KEY.fullmatch(key):
            yield Violation("metadata", f"keys are 1 to 64 of A-Z, a-z, 0-9, _, . and -; key {i} is not")
        elif len(metadata[key].encode()) > MAX_VALUE:
            yield Violation(f"metadata[{key}]", f"at most {MAX_VALUE} bytes")


def _system(system: str) -> Iterator[Violation]:
    if system and not system.strip():
        yield Violation("system", "text that is not blank, or nothing")


def _system_message(system: str) -> Iterable[inference_pb2.Message]:
    if system:
        part = inference_pb2.Part(text=system)
        yield inference_pb2.Message(role=inference_pb2.ROLE_SYSTEM, content=[part])


def _ttl(request: pb.CreateSessionRequest, limit: int) -> int:
    ttl = request.ttl_seconds if request.HasField("ttl_seconds") else min(DEFAULT_TTL, limit)
    if not MIN_TTL <= ttl <= limit:
        raise InvalidRequest(Violation("ttl_seconds", f"{MIN_TTL} to {limit} seconds; {ttl} was sent"))
    return ttl


def _head(session: Session) -> pb.Session:
    message = pb.Session(
        id=session.id,
        version=session.version,
        metadata=session.metadata,
        forked_from=session.forked_from,
        forked_at=session.forked_at,
    )
    message.created.FromMilliseconds(round(session.created * 1000))
    message.expires.FromMilliseconds(round(session.expires * 1000))
    return message


def _whole(session: Session, tenant: Tenant) -> pb.Session:
    message, shows = _head(session), Scope.REASONING in tenant.scopes
    message.messages.extend(wire.message(said, shows_reasoning=shows) for said in session.messages)
    message.turns.extend(map(_turn, session.turns))
    _summary(message, session)
    return message


def _summary(message: pb.Session, session: Session) -> None:
    if session.summary is not None:
        message.summary.message_count, message.summary.text = session.summary.covers, session.summary.text


def _turn(turn: SessionTurn) -> pb.SessionTurn:
    message = pb.SessionTurn(
        turn=turn.id,
        version=turn.version,
        model=turn.model,
        first_message=turn.first,
        message_count=turn.count,
    )
    message.created.FromMilliseconds(round(turn.created * 1000))
    return message
