"""A turn's session: held for it alone, and as much of its history as the model's context takes."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.errors import Conflict, InvalidRequest, StoreAway
from services.core.request import Ask, Effort, Tenant
from services.gateway import asked, context
from services.gateway.answer import fold
from services.gateway.context import Kept, Messages
from services.gateway.deps import Deps
from services.gateway.prompt import bound, conversation, render
from services.gateway.sample import sampler_of
from services.gateway.turn import Turn
from services.sessions.port import Session, check_bounds, total_bytes
from services.sessions.writing import Hold, writing


@asynccontextmanager
async def remembered(turn: Turn, deps: Deps) -> AsyncIterator[Session | None]:
    """The session that the request names, which no other turn writes to meanwhile.

    Raises NotFound, InvalidRequest, Conflict, DeadlineExceeded, Full, StoreAway.
    """
    ask, tenant = turn.asked.ask, turn.tenant
    if ask.session is None:
        yield None
        return
    hold = Hold(
        deps.sessions,
        tenant.id,
        ask.session,
        turn.id,
        elsewhere=lambda: turn.journal.left,
        settled=lambda: None if deps.recorder.keeps(turn.id) else turn.journal.sealed,
    )
    queue = turn.asked.request.session_busy == pb.SESSION_BUSY_QUEUE
    async with writing(hold, queue=queue, clock=deps.clock, deadline=turn.deadline, later=deps.tasks.start):
        if turn.remembered is not None:
            session = await deps.sessions.get(tenant.id, ask.session)
            yield as_it_was(session, turn.remembered)
        else:
            session = await look_up(ask, tenant, deps)
            check_version(session, turn.asked.request)
            yield session


async def look_up(ask: Ask, tenant: Tenant, deps: Deps) -> Session:
    """The session, which has room for the turn. Raises NotFound, InvalidRequest, StoreAway."""
    assert ask.session is not None
    session = await deps.sessions.get(tenant.id, ask.session)
    grown = session.messages + ask.messages
    check_bounds(len(grown) + 1, total_bytes(grown))
    return session


def check_version(session: Session, request: pb.GenerateRequest) -> None:
    """Raises Conflict if the caller has seen another version of the history."""
    if request.HasField("session_version") and request.session_version != session.version:
        raise Conflict(f"the session is at version {session.version}, not {request.session_version}")


def as_it_was(session: Session, before: asked.Kept) -> Session:
    """When the turn began: it may be in the session already."""
    return replace(session, version=before.version, messages=session.messages[: before.messages])


async def kept(session: Session | None, turn: Turn, deps: Deps) -> Kept:
    """The messages of the prompt, by the request's context policy. Raises what an extra generation raises."""
    ask, policy = turn.asked.ask, turn.asked.request.context_policy
    history = () if session is None else session.messages
    if session is None or policy == pb.CONTEXT_POLICY_REFUSE:
        return Kept((*history, *ask.messages))
    if (before := turn.remembered) is not None:
        return context.shown(history, ask.messages, before.gone, before.text)
    history_of = History(session, turn, deps)
    return await (history_of.cut() if policy == pb.CONTEXT_POLICY_DROP_OLDEST else history_of.summarized())


@dataclass(frozen=True, slots=True)
class History:
    """A session's history on its way into one turn's prompt."""

    session: Session
    turn: Turn
    deps: Deps

    @property
    def room(self) -> int:
        return context.room_for(self.turn.asked.ask, self._context_length)

    @property
    def _context_length(self) -> int:
        return self.deps.limits()[self.turn.model].context_length

    async def cut(self) -> Kept:
        new = self.turn.asked.ask.messages
        turns = context.turns_of(self.session.messages, new)
        return await context.fitting(turns, new, partial(self._count, self.turn.asked.ask), self.room)

    async def summarized(self) -> Kept:
        session, new = self.session, self.turn.asked.ask.messages
        kept = await context.summarized(
            session.messages,
            new,
            session.summary,
            partial(self._count, self.turn.asked.ask),
            self.room,
            self._context_length // context.SHARE,
            self._sum_up,
        )
        if kept.summary is not None:
            # One that cannot be kept is made again next time.
            with suppress(StoreAway, InvalidRequest):
                await self.deps.sessions.summarize(self.turn.tenant.id, session.id, kept.summary)
        return kept

    async def _count(self, ask: Ask, messages: Messages) -> int:
        """Tokens of the prompt; very many if it cannot be rendered, which is refused with its reason later."""
        said = conversation(ask, messages, self.session.created, self.deps, self.turn.tenant)
        try:
            return len(await render(said, self.deps.models[ask.model], self.deps))
        except InvalidRequest:
            return sys.maxsize

    async def _sum_up(self, messages: Messages, limit: int) -> str:
        """An answer of the turn's model in a turn of its own, which nobody reads and nothing keeps."""
        deps, outer = self.deps, self.turn
        model = deps.models[outer.model]
        effort = Effort.LOW if model.family.abilities.effort else None
        ask = Ask(model=outer.model, messages=messages, max_tokens=limit, effort=effort)
        inner = Turn(
            outer.id,
            replace(outer.asked, ask=ask),
            outer.clock,
            outer.deadline,
            outer.clock.monotonic(),
            outer.wall,
            trace=outer.trace,
        )
        said = conversation(ask, messages, outer.wall, deps, outer.tenant)
        prompt = await render(said, model, deps)
        inner.begin(len(prompt), 1)
        await sampler_of(bound(said, prompt, model, inner, deps), said, inner, deps).sample(0)
        return fold(inner.journal.events)[0].message().text
