"""Sampling one answer: on which replica, and what to do when it is lost or the model breaks its own format."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from services.backend.directory import Directory
from services.backend.link import Link
from services.backend.port import Cause, Order
from services.core.errors import (
    EngineLost,
    Full,
    HeadraceError,
    Internal,
    InvalidRequest,
    NoReplica,
    Violation,
)
from services.core.events import Ending, FinishReason, Restarted
from services.core.request import Ask, Conversation, Sampling
from services.gateway.deps import ServedModel
from services.gateway.generation import Ending as Heard
from services.gateway.generation import Generation
from services.gateway.turn import Count, Turn
from services.routing.least_wait import choose
from services.telemetry import metrics

MAX_ROUTES = 3  # replicas tried for an answer of which nothing was generated yet
MAX_SEED = 2**63 - 1

UNTOUCHED = {Cause.FULL, Cause.DRAINING, Cause.LOST, Cause.ENGINE}
GOOD = {Cause.STOP, Cause.LENGTH}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples the answers of one turn."""

    order: Order
    said: Conversation
    ask: Ask
    model: ServedModel
    directory: Directory
    turn: Turn

    async def sample(self, choice: int) -> Ending:
        """One answer; a second try, held to the format, if the model broke it before anything was visible.

        Raises Full, NoReplica, EngineLost, InvalidRequest, Internal.
        """
        order = replace(self.order, sampling=reseeded(self.order.sampling, choice))
        heard, generation = await self._on_replicas(order, choice)
        if heard.flaw and not self._seen(generation):
            self._count(heard.flaw, "retried")
            self.turn.append(Restarted(choice))
            self.turn.counts[choice] = Count()
            tag = order.structural_tag or self.model.family.legal(self.said)
            sampling = reseeded(order.sampling, self.ask.n)
            order = replace(order, sampling=sampling, structural_tag=tag)
            heard, generation = await self._on_replicas(order, choice)
        if heard.flaw:
            self._count(heard.flaw, "ended")
        return Ending(_reason(heard, generation), heard.stop_sequence)

    def _seen(self, generation: Generation) -> bool:
        """Whether the caller was told anything."""
        return generation.visible or (generation.thought and self.ask.shows_reasoning)

    def _count(self, flaw: str, action: str) -> None:
        metrics.MALFORMED.labels(self.model.name, flaw, action).inc()

    async def _on_replicas(self, order: Order, choice: int) -> tuple[Heard, Generation]:
        """As long as nothing was generated, a refusal or loss moves the order to another replica."""
        tried: set[str] = set()
        failure = self._no_link
        while (link := self._route(tried)) is not None and len(tried) < MAX_ROUTES:
            tried.add(link.lease.replica)
            heard, generation = await self._on(link, order, choice)
            if heard.cause in GOOD:
                return heard, generation
            failure = self._failure(heard)
            if heard.cause not in UNTOUCHED or self.turn.counts[choice].completion:
                break
            metrics.REROUTES.labels(self.model.name, heard.cause).inc()
        raise failure

    async def _on(self, link: Link, order: Order, choice: int) -> tuple[Heard, Generation]:
        family, meter, count = self.model.family, self.model.meter, self.turn.counts[choice]
        parser = family.parser(self.said, order.prompt)
        generation = Generation(self.turn, choice, parser, self.ask.stop, meter, family.token)
        order_id = link.submit(order, generation)
        try:
            return await generation.ending, generation
        finally:
            link.cancel(order_id)
            meter.completion.inc(count.completion)
            meter.reasoning.inc(count.reasoning)
            for flaw in set(parser.mended):
                self._count(flaw, "mended")

    def _route(self, tried: set[str]) -> Link | None:
        """The replica for an answer, of those not tried before; None if none is ready with room."""
        links = self.directory.links(self.model.name)
        return choose(link for link in links if link.lease.replica not in tried)

    @property
    def _no_link(self) -> HeadraceError:
        name = self.model.name
        if any(link.ready for link in self.directory.links(name)):
            return Full(f"every replica of {name} is at its capacity")
        return NoReplica(f"no replica of {name} is connected")

    def _failure(self, heard: Heard) -> HeadraceError:
        if heard.cause is Cause.FULL:
            return Full("the replicas are at their capacity")
        if heard.cause is Cause.DRAINING:
            return NoReplica("the replicas are shutting down")
        if heard.cause is Cause.REJECTED and self.order.structural_tag:
            field = "tools" if self.ask.format is None else "response_format"
            return InvalidRequest(Violation(field, f"the engine cannot follow it: {heard.detail}"))
        if heard.cause is Cause.REJECTED:
            return Internal("the engine refused the request")
        return EngineLost("the replica was lost during the turn")


def _reason(heard: Heard, generation: Generation) -> FinishReason:
    if heard.flaw:
        return FinishReason.MALFORMED
    if heard.stop_sequence:
        return FinishReason.STOP_SEQUENCE
    if heard.cause is Cause.LENGTH:
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if generation.called else FinishReason.STOP


def reseeded(sampling: Sampling, by: int) -> Sampling:
    """The same way of drawing with another seed, if one is set."""
    if sampling.seed is None or by == 0:
        return sampling
    return replace(sampling, seed=(sampling.seed + by) & MAX_SEED)


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """The results in order. The first failure, or a cancel, ends the others and is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
