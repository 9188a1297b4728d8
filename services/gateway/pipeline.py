"""The life of a turn, in nine stages: identify, validate, claim, admit, remember, screen, route, generate, settle."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from structlog.contextvars import bind_contextvars

from services.api.headrace.v1 import inference_pb2 as pb
from services.backend.port import Order
from services.core.errors import Cancelled, DeadlineExceeded, HeadraceError, Internal, Precondition, StoreAway
from services.core.events import Answered, Durability, Ending, Event
from services.core.request import Ask, Conversation, Message
from services.gateway.answer import Past, answered, fold, pasts
from services.gateway.asked import Asked, check_life, pack, read_life
from services.gateway.context import Kept
from services.gateway.deps import Deps
from services.gateway.history import kept, remembered
from services.gateway.meter import session_write
from services.gateway.prompt import bound, conversation, render
from services.gateway.sample import sampler_of, together
from services.gateway.turn import Turn
from services.gateway.validate import ModelLimits, permit, refuse_any, validate
from services.journal.port import Record
from services.journal.recorder import Recording
from services.sessions.port import Busy, Session
from services.store.connect import AWAY_TEXT
from services.telemetry import metrics

LONG_DEMANDS = 2_000  # bytes of tools and format
CLAIMING = 0.3  # seconds between a turn's hold on its session and its claim, at most as a rule


class Elsewhere(Exception):
    """Another turn has the request's idempotency key."""

    def __init__(self, turn: str) -> None:
        super().__init__(turn)
        self.turn = turn


@dataclass(frozen=True, slots=True)
class Work:
    """What a turn samples, and where it keeps the answer."""

    order: Order
    said: Conversation
    session: Session | None
    kept: Kept  # of the session's history


async def accept(
    authorization: str | None, request: pb.GenerateRequest, deps: Deps, *, streams: bool = True
) -> Asked:
    """Stages identify and validate. Raises what a call is refused with."""
    tenant = await deps.keyring.identify(authorization)
    refuse_any(check_life(request, deps.settings.max_turn_seconds))
    ask = await read(validate, request, deps)
    permit(ask, tenant)
    return Asked(tenant, request, ask, read_life(request, deps.settings, streams=streams))


async def run(turn: Turn, deps: Deps) -> None:
    """The other stages. Ends the turn with exactly one terminal event, or sends its readers to the turn that has
    its key; never raises a HeadraceError."""
    await _ending(turn, deps, _run(turn, deps))


async def resume(turn: Turn, past: Sequence[Event], deps: Deps) -> None:
    """As `run`, for a turn that another gateway began: `past` is its journal."""
    await _ending(turn, deps, _resume(turn, past, deps))


async def _ending(turn: Turn, deps: Deps, work: Coroutine[Any, Any, None]) -> None:
    bind_contextvars(turn=turn.id, **turn.trace.ids)  # of this task: what is logged on the way has them
    try:
        async with asyncio.timeout(turn.deadline.remaining(deps.clock)):
            await work
    except HeadraceError as error:
        turn.fail(error)
    except Elsewhere as other:
        metrics.REPEATS.inc()
        turn.leave(other.turn)
    except TimeoutError:
        turn.fail(DeadlineExceeded("the turn's deadline passed"))
    except asyncio.CancelledError:
        turn.fail(Cancelled("the gateway stopped"))
        raise
    finally:
        work.close()
        turn.fail(Internal("internal error"))  # only a crash gets here without an ending


async def _run(turn: Turn, deps: Deps) -> None:
    ask = turn.asked.ask
    with turn.trace.child("claim"):
        await claim(turn, deps)
    turn.go_on()
    with turn.trace.child("admit"):
        turn.held.enter_context(deps.admission.slot(turn.tenant.id))
    async with alone(turn, deps) as session:
        deps.screen.check(ask.messages, ask.demands())
        work = await prepare(session, turn, deps)
        with turn.trace.child("keep"):
            await keep(work, turn, deps)
        turn.go_on()
        turn.start(len(work.order.prompt), ask.n, work.kept.dropped)
        deps.models[ask.model].meter.prompt.inc(len(work.order.prompt))
        endings = await generate(work, [None] * ask.n, turn, deps)
        await settle(endings, session, turn, deps)


async def _resume(turn: Turn, past: Sequence[Event], deps: Deps) -> None:
    ask = turn.asked.ask
    turn.go_on()
    turn.held.enter_context(deps.admission.slot(turn.tenant.id, forced=True))
    async with remembered(turn, deps) as session:
        endings = answered(past)
        if endings is None:
            work = await prepare(session, turn, deps)
            if not turn.started:
                turn.start(len(work.order.prompt), ask.n, work.kept.dropped)
            endings = await generate(work, pasts(past, ask.n), turn, deps)
        await settle(endings, session, turn, deps)


@asynccontextmanager
async def alone(turn: Turn, deps: Deps) -> AsyncIterator[Session | None]:
    """The session, held for the turn. Raises Elsewhere if a turn that holds it has the same key, Busy."""
    async with AsyncExitStack() as stack:
        try:
            with turn.trace.child("remember"):
                session = await stack.enter_async_context(remembered(turn, deps))
        except Busy:
            await find_twin(turn, deps)
            session = await once_more(turn, deps, stack)
        yield session


async def once_more(turn: Turn, deps: Deps, stack: AsyncExitStack) -> Session | None:
    """The turn before may have been told to its end, and have let the session go only now. Raises Busy."""
    try:
        return await stack.enter_async_context(remembered(turn, deps))
    except Busy:
        metrics.SESSION_BUSY.inc()
        raise


async def find_twin(turn: Turn, deps: Deps) -> None:
    """Raises Elsewhere if the key is claimed within moments: by a copy of this call that came just before."""
    end = deps.clock.monotonic() + CLAIMING
    while turn.claim is not None and deps.clock.monotonic() < end:
        await claim(turn, deps)
        await asyncio.sleep(CLAIMING / 10)


async def claim(turn: Turn, deps: Deps) -> None:
    """Looks the idempotency key up. Raises Elsewhere if a turn has it, Precondition, StoreAway."""
    if turn.claim is None or not (other := await deps.journals.claimed(turn.tenant.id, turn.claim)):
        return
    stored = await deps.journals.find(other)
    if stored is None:
        raise Precondition("idempotency_key: its turn has ended, and the answer is not kept any more")
    if not stored.void:
        raise Elsewhere(other)
    turn.claim = replace(turn.claim, instead_of=other)


async def read(check: Callable[[Any, Mapping[str, ModelLimits]], Ask], request: Any, deps: Deps) -> Ask:
    """The validated request. Schemas are checked at about 0.4 ms a subschema, large ones in a thread."""
    if sum(tool.ByteSize() for tool in request.tools) + request.response_format.ByteSize() < LONG_DEMANDS:
        return check(request, deps.limits())
    async with deps.rendering:
        return await asyncio.to_thread(check, request, deps.limits())


async def prepare(session: Session | None, turn: Turn, deps: Deps) -> Work:
    """What the engine is asked for. Raises InvalidRequest, and what a summary of the history raises."""
    ask = turn.asked.ask
    model = deps.models[ask.model]
    shown = await kept(session, turn, deps)
    begun = turn.wall if session is None else session.created
    said = conversation(ask, shown.messages, begun, deps, turn.tenant)
    with turn.trace.child("render"):
        prompt = await render(said, model, deps)
    return Work(bound(said, prompt, model, turn, deps), said, session, shown)


async def keep(work: Work, turn: Turn, deps: Deps) -> None:
    """Puts the turn into the store, with its claim. Raises Elsewhere, and StoreAway if it may not go on without."""
    packed = pack(turn.asked, work.session, turn.wall, work.kept.gone, work.kept.text, turn.trace.header)
    record = turn.record(deps.name, packed, deps.retention(turn.tenant))
    try:
        holder = await deps.journals.create(record())
    except (StoreAway, asyncio.CancelledError) as away:
        # It may have reached the store all the same: what becomes of the turn has to follow.
        follow(turn, record, deps)
        if turn.asked.life.must_be_kept or not isinstance(away, StoreAway):
            turn.journal.seal()
            raise
        metrics.UNKEPT.inc()
        return
    if holder != turn.id:
        raise Elsewhere(holder)
    turn.kept = True
    follow(turn, record, deps)


def follow(turn: Turn, record: Callable[[], Record], deps: Deps) -> None:
    """From here on the store gets what the turn appends."""
    life = turn.asked.life
    must = life.must_end_kept or turn.asked.ask.session is not None
    size = turn.bounded(deps.settings.journal_bytes)
    deps.recorder.follow(Recording(record, turn.journal, must, turn.hear, size, turn.seen))


async def generate(work: Work, past: Sequence[Past | None], turn: Turn, deps: Deps) -> tuple[Ending, ...]:
    """Samples every answer, each after its past. Raises the errors of Sampler.sample."""
    sampler, n = sampler_of(work.order, work.said, turn, deps), turn.asked.ask.n
    if n == 1:
        return (await sampler.sample(0, past[0]),)
    return await together(sampler.sample(choice, past[choice]) for choice in range(n))


async def settle(endings: tuple[Ending, ...], session: Session | None, turn: Turn, deps: Deps) -> None:
    """Keeps the answer in the session and ends the turn. Raises Conflict, StoreAway."""
    version = 0
    if session is not None:
        version = await keep_answer(endings, session, turn, deps)
    turn.finish(endings, version, await durability(turn, deps))


async def keep_answer(endings: tuple[Ending, ...], session: Session, turn: Turn, deps: Deps) -> int:
    """The session's version with the answer. The journal says first that it is whole, so that whoever goes on
    with the turn keeps the same one."""
    if answered(turn.journal.events) is None:
        turn.append(Answered(endings))
    if not await deps.recorder.saved(turn.journal):
        raise StoreAway(AWAY_TEXT)
    answer = fold(turn.journal.events)[0].message()
    said = (*turn.asked.ask.messages, worth_keeping(answer))
    where = (turn.tenant.id, session.id, session.version)
    with session_write():
        try:
            return await deps.sessions.append(*where, said, operation=turn.id, model=turn.model)
        except StoreAway:
            # Perhaps only the reply was lost: by its operation's id the second call finds the first.
            return await deps.sessions.append(*where, said, operation=turn.id, model=turn.model)


async def durability(turn: Turn, deps: Deps) -> Durability:
    """Whether a second store has the turn, if that was asked for."""
    if not turn.asked.life.durable:
        return Durability.UNASKED
    try:
        seq = len(turn.journal)
        saved = await deps.recorder.saved(turn.journal) and await deps.journals.confirm(turn.id, seq)
    except StoreAway:
        saved = False
    return Durability.CONFIRMED if saved else Durability.UNCONFIRMED


def worth_keeping(answer: Message) -> Message:
    """Reasoning is of use only while its tool calls wait for their results."""
    return answer if answer.calls else Message(answer.role, answer.text)
