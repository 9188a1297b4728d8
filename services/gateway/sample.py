"""Sampling one answer: on which replica, and what to do when it is lost or the model breaks its own format."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from services.core.events import Ending, Event, FinishReason, Migrated, Restarted
from services.core.request import Ask, Conversation, Sampling
from services.gateway.answer import Past, fold
from services.gateway.deps import Deps, ServedModel
from services.gateway.generation import Ending as Heard
from services.gateway.generation import Generation
from services.gateway.search import LOOK, Connection, Search, connection
from services.gateway.turn import Count, Turn
from services.gateway.waiting import WaitingRoom
from services.routing.router import Router, Wish
from services.telemetry import metrics

MAX_ROUTES = 3  # replicas tried for an answer
MAX_SEED = 2**63 - 1

UNTOUCHED = {Cause.FULL, Cause.DRAINING, Cause.LOST, Cause.ENGINE}
GOOD = {Cause.STOP, Cause.LENGTH}
BAD = {Cause.LOST, Cause.ENGINE}

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
    recovery: float  # seconds that a begun answer waits for a replica to go on
    router: Router
    wish: Wish
    room: WaitingRoom
    hold: float  # seconds that one that has not begun waits for a replica with room

    async def sample(self, choice: int, past: Past | None = None) -> Ending:
        """One answer; a second try, held to the format, if the model broke it before anything was visible.
        It goes on after its `past`, if it has one.

        Raises Full, NoReplica, EngineLost, InvalidRequest, Internal.
        """
        past = past or Past()
        order = replace(self.order, sampling=reseeded(self.order.sampling, choice))
        if past.held:
            order = self._strict(order)
        generation = self._resumed(order, choice, past)
        heard = generation.whole(order.max_tokens) or await self._on_replicas(order, generation)
        if heard.flaw and not (past.held or self._seen(generation) or self.ask.ignore_eos):
            heard, generation = await self._again(order, heard, generation)
        if heard.flaw:
            self._count(heard.flaw, "ended")
        return Ending(_reason(heard, generation), heard.stop_sequence)

    async def _again(self, order: Order, heard: Heard, generation: Generation) -> tuple[Heard, Generation]:
        """The second try, held to the format; the first one's ending stands if no engine can follow that."""
        choice = generation.choice
        self._count(heard.flaw, "retried")
        self._void(choice, held=True)
        order, anew = self._strict(order), self._generation(order, choice)
        try:
            return await self._on_replicas(order, anew), anew
        except (InvalidRequest, Internal):
            return heard, generation

    def _strict(self, order: Order) -> Order:
        tag = order.structural_tag or self.model.family.legal(self.said)
        sampling = reseeded(order.sampling, self.ask.n)
        # A grammar decides where an answer ends.
        return replace(order, sampling=sampling, structural_tag=tag, min_tokens=0)

    def _seen(self, generation: Generation) -> bool:
        """Whether the caller was told anything."""
        return generation.visible or (generation.thought and self.ask.shows_reasoning)

    def _count(self, flaw: str, action: str) -> None:
        metrics.MALFORMED.labels(self.model.name, flaw, action).inc()

    async def _on_replicas(self, order: Order, generation: Generation) -> Heard:
        """An order that is refused or lost moves to another replica and goes on there after the ids it has. One
        that has begun is worth waiting for a replica, also for one that was full."""
        loop = asyncio.get_running_loop()
        tried, begun = set[Connection](), bool(generation.sampled)
        failure: HeadraceError | None = None
        search, losses, lost = self._search(generation.choice), 0, None
        until = loop.time() + self.recovery if begun else 0.0
        while losses < MAX_ROUTES and (link := await search.link(tried, until)) is not None:
            tried.add(connection(link))
            if lost is not None:
                generation.on_first = partial(self._moved, lost, begun)
            heard = await self._on(link, continued(order, generation.sampled), generation)
            self._report(link, heard.cause)
            if generation.on_first is None:
                lost = None
            if heard.cause in GOOD:
                return heard
            if len(generation.sampled) >= order.max_tokens:  # its end was lost, not one of its tokens
                return generation.cut()
            begun = begun or bool(generation.sampled)
            failure = self._failure(heard, begun=begun)
            if heard.cause is Cause.FULL and (begun or search.patient):
                tried.discard(connection(link))
                await self.directory.change(LOOK)
                continue
            if heard.cause not in UNTOUCHED:
                break
            losses, lost = losses + 1, heard.cause
            if begun and await self._gone(link):
                until = loop.time() + self.recovery
        generation.give_up()
        raise self._refused(failure or search.refusal())

    def _refused(self, failure: HeadraceError) -> HeadraceError:
        if isinstance(failure, Full | NoReplica):
            self.room.refuse(self.model.name)
        return failure

    def _search(self, choice: int) -> Search:
        held = (self.room, self.hold, self.turn, choice)
        return Search(self.model.name, self.directory, self.router, self.wish, *held)

    async def _gone(self, link: Link) -> bool:
        """A dead engine takes its link along within moments; one that lives has ended this turn alone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LOOK
        while link.ready and (left := end - loop.time()) > 0:
            await self.directory.change(left)
        return not link.ready

    def _resumed(self, order: Order, choice: int, past: Past) -> Generation:
        """The reading of an answer after what lies behind it. Raises Internal if it does not read the same here,
        as with another version of the tokenizer."""
        generation = self._generation(order, choice)
        if not past.ids:
            return generation
        said = generation.replay(past.ids)
        if not _reads_as(past, said, choice):  # what was held back is told at an answer's end only
            cause = Cause.LENGTH if len(past.ids) >= order.max_tokens else Cause.STOP
            said += generation.replay_end(cause)
            if not _reads_as(past, said, choice):
                raise Internal("the answer reads differently at this gateway")
        return generation

    def _generation(self, order: Order, choice: int) -> Generation:
        family = self.model.family
        parser = family.parser(self.said, order.prompt)
        return Generation(
            self.turn,
            choice,
            parser,
            self.ask.stop,
            self.model.meter,
            family.token,
            endless=self.ask.ignore_eos,
        )

    async def _on(self, link: Link, order: Order, generation: Generation) -> Heard:
        meter, count, mended = self.model.meter, self.turn.counts[generation.choice], generation.parser.mended
        before, reasoned, known = count.completion, count.reasoning, set(mended)
        generation.goes_on()
        trace = self.turn.trace.child("generate", replica=link.name, choice=generation.choice)
        order_id = link.submit(
            replace(order, traceparent=trace.header) if trace.header else order, generation
        )
        try:
            heard = await generation.ending
            trace.put(cause=heard.cause)
            return heard
        finally:
            link.cancel(order_id)
            if self.room.held(self.model.name):
                self.directory.stir()
            trace.put(tokens=count.completion - before)
            trace.end()
            meter.completion.inc(count.completion - before)
            meter.reasoning.inc(count.reasoning - reasoned)
            for flaw in set(mended) - known:
                self._count(flaw, "mended")

    def _void(self, choice: int, *, held: bool = False) -> None:
        self.turn.append(Restarted(choice, held))
        self.turn.counts[choice] = Count()

    def _moved(self, cause: Cause, begun: bool) -> None:
        if begun:
            self.turn.migrations += 1
            self.turn.trace.event("migration", cause=cause)
            self.turn.append(Migrated())
            metrics.MIGRATIONS.labels(self.model.name, cause).inc()
        else:
            metrics.REROUTES.labels(self.model.name, cause).inc()

    def _report(self, link: Link, cause: Cause) -> None:
        """Tells routing what came of an order; what the caller or the replica's load decided says nothing."""
        peers, now = self.directory.links(self.model.name), asyncio.get_running_loop().time()
        if cause in GOOD and self.router.served(link, peers, now):
            metrics.EJECTIONS.labels(self.model.name, "slow").inc()
        elif cause in BAD and self.router.failed(link, peers, now):
            metrics.EJECTIONS.labels(self.model.name, "failing").inc()

    def _failure(self, heard: Heard, *, begun: bool) -> HeadraceError:
        if heard.cause is Cause.FULL:
            return Full("the replicas are at their capacity")
        if heard.cause is Cause.DRAINING:
            return NoReplica("the replicas are shutting down")
        if heard.cause is Cause.REJECTED and begun:
            return EngineLost(
                "the replica was lost during the turn, and another cannot go on with the answer"
            )
        if heard.cause is Cause.REJECTED and self.order.structural_tag:
            field = "tools" if self.ask.format is None else "response_format"
            return InvalidRequest(Violation(field, f"the engine cannot follow it: {heard.detail}"))
        if heard.cause is Cause.REJECTED:
            return Internal("the engine refused the request")
        return EngineLost("the replica was lost during the turn")


def sampler_of(order: Order, said: Conversation, turn: Turn, deps: Deps) -> Sampler:
    ask = turn.asked.ask
    wish = deps.router.wish(order.cache_salt, order.prompt, ask.session)
    model, settings = deps.models[ask.model], deps.settings
    where = (deps.router, wish, deps.waiting, settings.hold)
    return Sampler(order, said, ask, model, deps.directory, turn, settings.recovery, *where)


def _reads_as(past: Past, said: Sequence[Event], choice: int) -> bool:
    return fold(said, choice + 1)[choice].message() == past.answer.message()


def _reason(heard: Heard, generation: Generation) -> FinishReason:
    if heard.flaw:
        return FinishReason.MALFORMED
    if heard.stop_sequence:
        return FinishReason.STOP_SEQUENCE
    if heard.cause is Cause.LENGTH:
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if generation.called else FinishReason.STOP


def continued(order: Order, sampled: Sequence[int]) -> Order:
    """What is left of the order after these ids.

    Not exact in two ways: presence and frequency penalties count the output of the new order alone, and a
    seed begins its numbers anew.
    """
    if not sampled:
        return order
    left = order.max_tokens - len(sampled)
    return replace(
        order,
        prompt=[*order.prompt, *sampled],
        max_tokens=left,
        min_tokens=min(max(0, order.min_tokens - len(sampled)), left),
        continued=len(sampled),
    )


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
