"""headrace.v1.Inference: each call is a reader of a turn's journal."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc
from services.core.clock import Deadline
from services.core.errors import Cancelled, DeadlineExceeded, StoreAway
from services.core.events import Event, Failed
from services.core.request import Ask, Conversation, Scope, Tenant
from services.gateway import pipeline, wire
from services.gateway.answer import fold
from services.gateway.asked import Asked, request_of, unpack
from services.gateway.deps import Deps
from services.gateway.history import look_up
from services.gateway.metadata import authorization, traceparent
from services.gateway.prompt import conversation, render
from services.gateway.reader import Reader, Rewound
from services.gateway.response import response, turn_message
from services.gateway.turn import Turn
from services.gateway.validate import validate_count, validate_position
from services.journal.port import placed
from services.telemetry.metrics import MESSAGES, RESUMES, REWINDS
from services.telemetry.traces import Trace

Context = grpc.aio.ServicerContext[Any, Any]

CANCELLING = 2.0  # seconds that a cancel waits for the turn to have ended
LAST_READ = 2.0  # seconds after the turn's deadline for its reader to take what is there


class Inference(inference_pb2_grpc.InferenceServicer):
    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        asked, trace = await self._accept(request, context, streams=False)
        async with self._reading(self._start(asked, trace, context), asked.tenant, context) as reader:
            events = await _all(reader)
        return response(events, shows_reasoning=request.reasoning.include)

    async def StreamGenerate(self, request: pb.GenerateRequest, context: Context) -> None:
        asked, trace = await self._accept(request, context)
        async with self._reading(self._start(asked, trace, context), asked.tenant, context) as reader:
            await _deliver(reader, context, shows_reasoning=request.reasoning.include)

    async def StartTurn(self, request: pb.GenerateRequest, context: Context) -> pb.Turn:
        asked, trace = await self._accept(request, context)
        life = replace(asked.life, linger=math.inf, timeout=asked.life.timeout or self._most)
        started = self._start(replace(asked, life=life), trace, context)
        async with self._reading(started, asked.tenant, context) as reader:
            first = await reader.read()
            assert not isinstance(first, Rewound), "a reader from the beginning is never ahead"
            if first and isinstance(failed := first[0].event, Failed):
                raise failed.error
            # With the key of an earlier call it may have ended long ago.
            told = (await reader.open()).told
        return turn_message(reader.turn, told, shows_reasoning=request.reasoning.include)

    async def ResumeTurn(self, request: pb.ResumeTurnRequest, context: Context) -> None:
        tenant = await self._deps.keyring.identify(authorization(context))
        validate_position(request)
        shows = Scope.REASONING in tenant.scopes and await self._shows_reasoning(request.turn, tenant)
        RESUMES.inc()
        position = (request.epoch, request.after_seq)
        link = await self._origin(request.turn, tenant)
        with self._deps.tracing.begin("resume", traceparent(context), link, turn=request.turn):
            async with self._reading(request.turn, tenant, context, *position) as reader:
                await _deliver(reader, context, shows_reasoning=shows)

    async def GetTurn(self, request: pb.GetTurnRequest, context: Context) -> pb.Turn:
        tenant = await self._deps.keyring.identify(authorization(context))
        validate_position(request)
        return await self._turn(request.turn, tenant)

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.Turn:
        tenant = await self._deps.keyring.identify(authorization(context))
        validate_position(request)
        turn = self._deps.turns.find(request.turn, tenant.id)
        if turn is not None:
            turn.fail(Cancelled("the turn was cancelled"))
        elif (await self._turn(request.turn, tenant)).state == pb.Turn.RUNNING:
            await self._deps.journals.cancel(request.turn)
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCELLING), Reader(self._deps, request.turn, tenant.id) as reader:
                await _all(reader)
        return await self._turn(request.turn, tenant)

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        deps = self._deps
        tenant = await deps.keyring.identify(authorization(context))
        limits = deps.limits()
        ask = await pipeline.read(validate_count, request, deps)
        with deps.admission.slot(tenant.id):
            prompt = await render(await self._said(ask, tenant), deps.models[ask.model], deps)
        return pb.CountTokensResponse(
            model=ask.model, prompt_tokens=len(prompt), context_length=limits[ask.model].context_length
        )

    async def _said(self, ask: Ask, tenant: Tenant) -> Conversation:
        deps = self._deps
        session = None if ask.session is None else await look_up(ask, tenant, deps)
        history, begun = ((), deps.clock.now()) if session is None else (session.messages, session.created)
        return conversation(ask, (*history, *ask.messages), begun, deps, tenant)

    async def _accept(
        self, request: pb.GenerateRequest, context: Context, *, streams: bool = True
    ) -> tuple[Asked, Trace]:
        trace = self._deps.tracing.begin("turn", traceparent(context), gen_ai__operation__name="chat")
        with ExitStack() as refused:
            refused.push(trace)  # which ends here only with an error
            with trace.child("identify"):
                asked = await pipeline.accept(authorization(context), request, self._deps, streams=streams)
            refused.pop_all()
        return asked, trace

    def _start(self, asked: Asked, trace: Trace, context: Context) -> str:
        """Starts a turn and returns its id."""
        deps = self._deps
        seconds = asked.life.timeout or self._allowed(context)
        turn = Turn(
            id=placed(deps.ids.new("turn"), asked.tenant.id, asked.life.claim),
            asked=asked,
            clock=deps.clock,
            deadline=Deadline.after(deps.clock, seconds),
            begun=deps.clock.monotonic(),
            wall=deps.clock.now(),
            claim=asked.life.claim,
            label=deps.tenants.of(asked.tenant.id),
            trace=trace,
        )
        trace.put(turn=turn.id, tenant=turn.label, gen_ai__request__model=turn.model)
        deps.turns.start(turn, pipeline.run(turn, deps))
        return turn.id

    @asynccontextmanager
    async def _reading(
        self, turn: str, tenant: Tenant, context: Context, epoch: int = 0, seq: int = 0
    ) -> AsyncIterator[Reader]:
        try:
            async with (
                asyncio.timeout(self._allowed(context) + LAST_READ),
                Reader(self._deps, turn, tenant.id, epoch, seq) as reader,
            ):
                yield reader
        except TimeoutError:
            raise DeadlineExceeded("the answer was not taken before the turn's deadline") from None

    async def _origin(self, id: str, tenant: Tenant) -> str:
        """The trace that the turn is in here, or began in; "" where it is not traced, or not known."""
        if not self._deps.tracing.on:
            return ""
        if (turn := self._deps.turns.find(id, tenant.id)) is not None:
            return turn.trace.header
        with suppress(StoreAway, ValueError):
            if (stored := await self._deps.journals.find(id)) is not None:
                return unpack(stored.record.request).trace
        return ""

    async def _turn(self, id: str, tenant: Tenant) -> pb.Turn:
        """The turn as far as it is. Raises NotFound, StoreAway."""
        shows = Scope.REASONING in tenant.scopes and await self._shows_reasoning(id, tenant)
        async with Reader(self._deps, id, tenant.id) as reader:
            journal = await reader.open()
            return turn_message(id, journal.told, shows_reasoning=shows)

    async def _shows_reasoning(self, id: str, tenant: Tenant) -> bool:
        """Whether the turn's own call asked for its reasoning."""
        if (turn := self._deps.turns.find(id, tenant.id)) is not None:
            return turn.asked.ask.shows_reasoning
        stored = await self._deps.journals.find(id)
        return stored is not None and request_of(unpack(stored.record.request)).reasoning.include

    @property
    def _most(self) -> float:
        return self._deps.settings.max_turn_seconds

    def _allowed(self, context: Context) -> float:
        """Seconds that the call may take: the caller's deadline, at most the gateway's."""
        asked = context.time_remaining()
        return self._most if asked is None else min(asked, self._most)


async def _all(reader: Reader) -> list[Event]:
    events: list[Event] = []
    while more := await reader.read():
        if isinstance(more, Rewound):
            events = list(more.events)
        else:
            events += [entry.event for entry in more]
    return events


async def _deliver(reader: Reader, context: Context, *, shows_reasoning: bool) -> None:
    """Writes what the reader reads. Raises the error that the turn ended with."""
    written = 0
    try:
        while more := await reader.read():
            if isinstance(more, Rewound):
                REWINDS.inc()
                answers = [answer.message() for answer in fold(more.events)]
                await context.write(
                    wire.rewind(answers, more.seq, reader.epoch, shows_reasoning=shows_reasoning)
                )
                continue
            for message in wire.messages(more, reader.epoch, shows_reasoning=shows_reasoning):
                await context.write(message)
                written += 1
            if isinstance(last := more[-1].event, Failed):
                raise last.error
    finally:
        MESSAGES.inc(written)
