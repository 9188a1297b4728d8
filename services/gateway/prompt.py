"""From what was said to the token ids that an engine is asked to go on from."""

import asyncio
from collections.abc import Sequence

from services.backend.port import Order
from services.core.request import Ask, Conversation, Message, Tenant
from services.gateway.deps import Deps, ServedModel
from services.gateway.turn import Turn
from services.gateway.validate import fit, over_context
from services.sessions.port import total_bytes

LONG_PROMPT = 20_000  # bytes


def conversation(
    ask: Ask, messages: Sequence[Message], begun: float, deps: Deps, tenant: Tenant
) -> Conversation:
    """All that the prompt is made of. `begun`: when the conversation did, in seconds since the epoch; its date
    stays the same, so that its prompts stay prefixes of one another."""
    return Conversation(
        messages=tuple(messages),
        functions=ask.functions,
        choice=ask.choice,
        format=ask.format,
        effort=ask.effort or deps.effort(tenant, ask.model),
        date=deps.date(begun),
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


def bound(said: Conversation, prompt: list[int], model: ServedModel, turn: Turn, deps: Deps) -> Order:
    """Raises InvalidRequest if prompt and output exceed the context."""
    ask = turn.asked.ask
    context_length = deps.limits()[ask.model].context_length
    return Order(
        turn=turn.id,
        prompt=prompt,
        max_tokens=fit(ask, len(prompt), context_length, deps.settings.default_max_tokens),
        min_tokens=ask.min_tokens,
        stop_ids=() if ask.ignore_eos else model.family.stop_ids,
        sampling=model.with_defaults(ask.sampling),
        cache_salt=deps.salt(turn.tenant.id),
        structural_tag=model.family.structure(said),
        logprobs=ask.logprobs,
    )
