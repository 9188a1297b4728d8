"""The life of a turn, in nine stages: identify, validate, claim, admit, remember, screen, route, generate, settle."""

import asyncio
from dataclasses import dataclass

from services.api.headrace.v1 import inference_pb2 as pb
from services.backend.link import Link
from services.backend.port import Cause, Order
from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineLost,
    Full,
    HeadraceError,
    Internal,
    NoReplica,
)
from services.core.events import FinishReason
from services.core.request import Ask, Message, Role, Tenant
from services.gateway.deps import Deps, ServedModel
from services.gateway.generation import Ending, Generation
from services.gateway.turn import Turn
from services.gateway.validate import fit, over_context, validate
from services.routing.least_wait import choose
from services.sessions.port import Session, check_bounds, text_bytes
from services.telemetry import metrics

LONG_PROMPT = 20_000  # bytes
MAX_ROUTES = 3  # replicas tried for a turn of which nothing was generated yet

FINISHED = {Cause.STOP: FinishReason.STOP, Cause.LENGTH: FinishReason.LENGTH}
UNTOUCHED = {Cause.FULL, Cause.DRAINING, Cause.LOST, Cause.ENGINE}


@dataclass(frozen=True, slots=True)
class Call:
    """What came over the wire, before anything is believed."""

    authorization: str | None
    request: pb.GenerateRequest


async def run(call: Call, deps: Deps, turn: Turn) -> None:
    """Ends the turn with exactly one terminal event, whatever happens, and never raises a HeadraceError."""
    try:
        async with asyncio.timeout(turn.deadline.remaining(deps.clock)):
            await _run(call, deps, turn)
    except HeadraceError as error:
        turn.fail(error)
    except TimeoutError:
        turn.fail(DeadlineExceeded("the turn's deadline passed"))
    except asyncio.CancelledError:
        turn.fail(Cancelled("the caller went away"))
        raise
    finally:
        turn.fail(Internal("internal error"))  # only a crash gets here without an ending


async def _run(call: Call, deps: Deps, turn: Turn) -> None:
    tenant = await deps.keyring.identify(call.authorization)
    turn.go_on()
    ask = validate(call.request, deps.limits())
    turn.held.enter_context(deps.turns.claim(turn, tenant, ask))
    turn.held.enter_context(deps.admission.slot())
    session = await remember(ask, tenant, deps)
    deps.screen.check(ask.messages)
    model = deps.models[ask.model]
    prompt = await render(conversation(ask, session), model, deps)
    turn.go_on()
    order = bound(ask, prompt, model, deps, turn, tenant)
    turn.start(len(order.prompt))
    model.meter.prompt.inc(len(order.prompt))
    ending = await generate(order, ask, model, deps, turn)
    await settle(ending, ask, session, deps, turn, tenant)


async def remember(ask: Ask, tenant: Tenant, deps: Deps) -> Session | None:
    """The session the request names, with its history and room for the turn.

    Raises NotFound, InvalidRequest, StoreAway.
    """
    if ask.session is None:
        return None
    session = await deps.sessions.get(tenant.id, ask.session)
    grown = session.messages + ask.messages
    check_bounds(len(grown) + 1, text_bytes(grown))
    return session


def conversation(ask: Ask, session: Session | None) -> tuple[Message, ...]:
    return ask.messages if session is None else session.messages + ask.messages


async def render(messages: tuple[Message, ...], model: ServedModel, deps: Deps) -> list[int]:
    """The prompt's token ids. Long ones are encoded in a thread, about 1 us per token, so that streams go on.

    Raises InvalidRequest, without encoding it, for text that cannot fit the context whatever its tokens are.
    """
    size, context_length = text_bytes(messages), deps.limits()[model.name].context_length
    if model.longest_token is not None and (least := size // model.longest_token) > context_length:
        raise over_context(f"at least {least}", context_length)
    if size < LONG_PROMPT:
        return model.renderer.prompt(messages)
    async with deps.rendering:
        return await asyncio.to_thread(model.renderer.prompt, messages)


def bound(ask: Ask, prompt: list[int], model: ServedModel, deps: Deps, turn: Turn, tenant: Tenant) -> Order:
    """What the engine is asked for. Raises InvalidRequest if prompt and output exceed the context."""
    context_length = deps.limits()[ask.model].context_length
    return Order(
        turn=turn.id,
        prompt=prompt,
        max_tokens=fit(ask, len(prompt), context_length, deps.settings.default_max_tokens),
        min_tokens=ask.min_tokens,
        stop_ids=model.checkpoint.stop_ids,
        sampling=model.with_defaults(ask.sampling),
        cache_salt=deps.salt(tenant.id),
    )


async def generate(order: Order, ask: Ask, model: ServedModel, deps: Deps, turn: Turn) -> Ending:
    """Runs the order on a replica; as long as nothing was generated, a refusal or loss moves it to another."""
    tried: set[str] = set()
    ending = None
    while True:
        link = route(model, deps, tried)
        if link is None and ending is not None:
            return ending
        if link is None:
            raise _no_link(model, deps)
        tried.add(link.lease.replica)
        generation = Generation(turn, model.detokenizer(), ask.stop, model.meter)
        order_id = link.submit(order, generation)
        try:
            ending = await generation.ending
        finally:
            link.cancel(order_id)
            model.meter.completion.inc(turn.completion_tokens)
        if ending.cause not in UNTOUCHED or turn.completion_tokens or len(tried) == MAX_ROUTES:
            return ending
        metrics.REROUTES.labels(ask.model, ending.cause).inc()


def route(model: ServedModel, deps: Deps, tried: set[str]) -> Link | None:
    """The replica for a turn, of those not tried before; None if none is ready with room."""
    return choose(link for link in deps.directory.links(model.name) if link.lease.replica not in tried)


def _no_link(model: ServedModel, deps: Deps) -> HeadraceError:
    if any(link.ready for link in deps.directory.links(model.name)):
        return Full(f"every replica of {model.name} is at its capacity")
    return NoReplica(f"no replica of {model.name} is connected")


async def settle(
    ending: Ending, ask: Ask, session: Session | None, deps: Deps, turn: Turn, tenant: Tenant
) -> None:
    """Keeps the answer in the session and ends the turn. Raises EngineLost, Conflict, StoreAway."""
    if ending.cause not in FINISHED:
        raise _failure(ending)
    version = 0
    if session is not None:
        said = (*ask.messages, Message(Role.ASSISTANT, "".join(turn.text)))
        version = await deps.sessions.append(tenant.id, session.id, session.version, said, operation=turn.id)
    reason = FinishReason.STOP_SEQUENCE if ending.stop_sequence else FINISHED[ending.cause]
    turn.finish(reason, ending.stop_sequence, version)


def _failure(ending: Ending) -> HeadraceError:
    if ending.cause is Cause.FULL:
        return Full("the replicas are at their capacity")
    if ending.cause is Cause.DRAINING:
        return NoReplica("the replicas are shutting down")
    if ending.cause is Cause.REJECTED:
        return Internal("the engine refused the request")
    return EngineLost("the replica was lost during the turn")
