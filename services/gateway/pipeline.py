"""The life of a turn, in nine stages: identify, validate, claim, admit, remember, screen, route, generate, settle."""

import asyncio
from contextlib import AsyncExitStack
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
from services.gateway.validate import fit, validate
from services.routing.least_wait import choose
from services.sessions.port import Session
from services.telemetry import metrics

LONG_PROMPT = 20_000  # characters
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
        async with asyncio.timeout(turn.deadline.remaining(deps.clock)), AsyncExitStack() as held:
            await _run(call, deps, turn, held)
    except HeadraceError as error:
        turn.fail(error)
    except TimeoutError:
        turn.fail(DeadlineExceeded("the turn's deadline passed"))
    except asyncio.CancelledError:
        turn.fail(Cancelled("the caller went away"))
        raise
    finally:
        turn.fail(Internal("internal error"))  # only a crash gets here without an ending


async def _run(call: Call, deps: Deps, turn: Turn, held: AsyncExitStack) -> None:
    tenant = await deps.keyring.identify(call.authorization)
    ask = validate(call.request, deps.limits())
    held.enter_context(deps.turns.claim(turn, tenant, ask))
    held.enter_context(deps.admission.slot())
    session = await remember(ask, tenant, deps)
    deps.screen.check(ask.messages)
    model = deps.models[ask.model]
    prompt = await render(conversation(ask, session), model)
    order = bound(ask, prompt, model, deps, turn, tenant)
    turn.start(len(order.prompt))
    model.meter.prompt.inc(len(order.prompt))
    ending = await generate(order, ask, model, deps, turn)
    await settle(ending, ask, session, deps, turn, tenant)


async def remember(ask: Ask, tenant: Tenant, deps: Deps) -> Session | None:
    """The session the request names, with its history. Raises NotFound, InvalidRequest, StoreAway."""
    return None if ask.session is None else await deps.sessions.get(tenant.id, ask.session)


def conversation(ask: Ask, session: Session | None) -> tuple[Message, ...]:
    return ask.messages if session is None else session.messages + ask.messages


async def render(messages: tuple[Message, ...], model: ServedModel) -> list[int]:
    """The prompt's token ids. Long ones are encoded in a thread, about 1 us per token, so that streams go on."""
    if sum(len(message.text) for message in messages) < LONG_PROMPT:
        return model.renderer.prompt(messages)
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
    while True:
        link = route(order, model, deps, tried)
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


def route(order: Order, model: ServedModel, deps: Deps, tried: set[str]) -> Link:
    """Raises NoReplica if none is connected, Full if each one is at its capacity."""
    links = deps.directory.links(model.name)
    link = choose(one for one in links if one.lease.replica not in tried)
    if link is not None:
        return link
    if any(one.ready for one in links):
        raise Full(f"every replica of {model.name} is at its capacity")
    raise NoReplica(f"no replica of {model.name} is connected")


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
