"""The life of a turn, in nine stages: identify, validate, claim, admit, remember, screen, route, generate, settle."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from services.backend.port import Order
from services.core.errors import Cancelled, DeadlineExceeded, HeadraceError, Internal
from services.core.events import Ending
from services.core.request import Ask, Conversation, Message, Tenant
from services.gateway.answer import fold
from services.gateway.deps import Deps, ServedModel
from services.gateway.sample import Sampler, together
from services.gateway.turn import Turn
from services.gateway.validate import ModelLimits, fit, over_context, permit, validate
from services.sessions.port import Session, check_bounds, total_bytes

LONG_PROMPT = 20_000  # bytes
LONG_DEMANDS = 2_000  # bytes of tools and format


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
    ask = await read(validate, call.request, deps)
    permit(ask, tenant)
    turn.held.enter_context(deps.turns.claim(turn, tenant, ask))
    turn.held.enter_context(deps.admission.slot())
    session = await remember(ask, tenant, deps)
    deps.screen.check(ask.messages, ask.demands())
    model = deps.models[ask.model]
    said = conversation(ask, session, deps, tenant)
    prompt = await render(said, model, deps)
    turn.go_on()
    order = bound(ask, said, prompt, model, deps, turn, tenant)
    turn.start(len(order.prompt), ask.n)
    model.meter.prompt.inc(len(order.prompt))
    endings = await generate(order, said, ask, model, deps, turn)
    await settle(endings, ask, session, deps, turn, tenant)


async def read(check: Callable[[Any, Mapping[str, ModelLimits]], Ask], request: Any, deps: Deps) -> Ask:
    """The validated request. Schemas are checked at about 0.4 ms a subschema, large ones in a thread."""
    if sum(tool.ByteSize() for tool in request.tools) + request.response_format.ByteSize() < LONG_DEMANDS:
        return check(request, deps.limits())
    async with deps.rendering:
        return await asyncio.to_thread(check, request, deps.limits())


async def remember(ask: Ask, tenant: Tenant, deps: Deps) -> Session | None:
    """The session the request names, with its history and room for the turn.

    Raises NotFound, InvalidRequest, StoreAway.
    """
    if ask.session is None:
        return None
    session = await deps.sessions.get(tenant.id, ask.session)
    grown = session.messages + ask.messages
    check_bounds(len(grown) + 1, total_bytes(grown))
    return session


def conversation(ask: Ask, session: Session | None, deps: Deps, tenant: Tenant) -> Conversation:
    """All that the prompt is made of. The date is that of the session's beginning, so that its prompts stay
    prefixes of one another."""
    return Conversation(
        messages=ask.messages if session is None else session.messages + ask.messages,
        functions=ask.functions,
        choice=ask.choice,
        format=ask.format,
        effort=ask.effort or deps.effort(tenant, ask.model),
        date=deps.date(None if session is None else session.created),
    )


async def render(said: Conversation, model: ServedModel, deps: Deps) -> list[int]:
    """The prompt's token ids. Long ones are encoded in a thread, about 1 us per token, so that streams go on.

    Raises InvalidRequest, without encoding it, for text that cannot fit the context whatever its tokens are.
    """
    family = model.family
    size, context_length = total_bytes(said.messages), deps.limits()[model.name].context_length
    if family.longest_token is not None and (least := size // family.longest_token) > context_length:
        raise over_context(f"at least {least}", context_length)
    if said.size < LONG_PROMPT:
        return family.prompt(said)
    async with deps.rendering:
        return await asyncio.to_thread(family.prompt, said)


def bound(
    ask: Ask,
    said: Conversation,
    prompt: list[int],
    model: ServedModel,
    deps: Deps,
    turn: Turn,
    tenant: Tenant,
) -> Order:
    """What the engine is asked for. Raises InvalidRequest if prompt and output exceed the context."""
    context_length = deps.limits()[ask.model].context_length
    return Order(
        turn=turn.id,
        prompt=prompt,
        max_tokens=fit(ask, len(prompt), context_length, deps.settings.default_max_tokens),
        min_tokens=ask.min_tokens,
        stop_ids=() if ask.ignore_eos else model.family.stop_ids,
        sampling=model.with_defaults(ask.sampling),
        cache_salt=deps.salt(tenant.id),
        structural_tag=model.family.structure(said),
        logprobs=ask.logprobs,
    )


async def generate(
    order: Order, said: Conversation, ask: Ask, model: ServedModel, deps: Deps, turn: Turn
) -> tuple[Ending, ...]:
    """Samples every answer. Raises the errors of Sampler.sample."""
    wish = deps.router.wish(order.cache_salt, order.prompt, ask.session)
    sampler = Sampler(
        order, said, ask, model, deps.directory, turn, deps.settings.recovery, deps.router, wish
    )
    if ask.n == 1:
        return (await sampler.sample(0),)
    return await together(sampler.sample(choice) for choice in range(ask.n))


async def settle(
    endings: tuple[Ending, ...], ask: Ask, session: Session | None, deps: Deps, turn: Turn, tenant: Tenant
) -> None:
    """Keeps the answer in the session and ends the turn. Raises Conflict, StoreAway."""
    version = 0
    if session is not None:
        entries = await turn.journal.read(0)
        answer = fold(entry.event for entry in entries)[0].message()
        said = (*ask.messages, worth_keeping(answer))
        version = await deps.sessions.append(tenant.id, session.id, session.version, said, operation=turn.id)
    turn.finish(endings, version)


def worth_keeping(answer: Message) -> Message:
    """Reasoning is of use only while its tool calls wait for their results."""
    return answer if answer.calls else Message(answer.role, answer.text)
