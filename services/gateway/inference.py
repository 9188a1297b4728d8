"""headrace.v1.Inference: each call is a reader of its turn's journal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc
from services.core.clock import Deadline
from services.core.errors import Cancelled, DeadlineExceeded, HeadraceError
from services.core.events import Ending, Event, Failed, Finished, Started, Usage
from services.gateway import pipeline, wire
from services.gateway.answer import Answer, fold
from services.gateway.deps import Deps
from services.gateway.metadata import authorization
from services.gateway.turn import Turn
from services.gateway.validate import validate_count
from services.journal.memory import MemoryJournal
from services.telemetry.metrics import MESSAGES

Context = grpc.aio.ServicerContext[Any, Any]


LAST_READ = 2.0  # seconds after the turn's deadline for its reader to take what is there


class Inference(inference_pb2_grpc.InferenceServicer):
    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        events: list[Event] = []
        async with self._turn(request, context) as turn:
            while entries := await turn.journal.read(len(events)):
                events += [entry.event for entry in entries]
        return _response(events, shows_reasoning=request.reasoning.include)

    async def StreamGenerate(self, request: pb.GenerateRequest, context: Context) -> None:
        after = written = 0
        try:
            async with self._turn(request, context) as turn:
                while entries := await turn.journal.read(after):
                    after = entries[-1].seq
                    for message in wire.messages(entries, shows_reasoning=request.reasoning.include):
                        await context.write(message)
                        written += 1
                    last = entries[-1].event
                    if isinstance(last, Failed):
                        raise last.error
        finally:
            MESSAGES.inc(written)

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        deps = self._deps
        tenant = await deps.keyring.identify(authorization(context))
        limits = deps.limits()
        ask = await pipeline.read(validate_count, request, deps)
        with deps.admission.slot():
            session = await pipeline.remember(ask, tenant, deps)
            said = pipeline.conversation(ask, session, deps, tenant)
            prompt = await pipeline.render(said, deps.models[ask.model], deps)
        return pb.CountTokensResponse(
            model=ask.model, prompt_tokens=len(prompt), context_length=limits[ask.model].context_length
        )

    @asynccontextmanager
    async def _turn(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[Turn]:
        """Starts a turn and holds it for this reader; a reader that leaves early ends it."""
        deps = self._deps
        turn = Turn(
            id=deps.ids.new("turn"),
            journal=MemoryJournal(),
            clock=deps.clock,
            deadline=Deadline.after(deps.clock, self._allowed(context)),
            begun=deps.clock.monotonic(),
        )
        call = pipeline.Call(authorization(context), request)
        task = deps.tasks.start(pipeline.run(call, deps, turn), turn.id)
        try:
            async with asyncio.timeout(self._allowed(context) + LAST_READ):
                yield turn
        except TimeoutError:
            raise DeadlineExceeded("the answer was not taken before the turn's deadline") from None
        except asyncio.CancelledError:
            turn.fail(_departure(context))
            raise
        finally:
            task.cancel()
            turn.held.close()

    def _allowed(self, context: Context) -> float:
        """Seconds the turn may take: the caller's deadline, at most the gateway's."""
        asked, most = context.time_remaining(), self._deps.settings.max_turn_seconds
        return most if asked is None else min(asked, most)


def _departure(context: Context) -> HeadraceError:
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        return DeadlineExceeded("the call's deadline passed")
    return Cancelled("the caller went away")


def _response(events: list[Event], *, shows_reasoning: bool) -> pb.GenerateResponse:
    """The whole of a turn that has ended. Raises the error that it ended with."""
    reply = pb.GenerateResponse()
    for event in events:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Started):
            reply.turn, reply.model = event.turn, event.model
        elif isinstance(event, Usage):
            reply.usage.CopyFrom(wire.usage(event))
        elif isinstance(event, Finished):
            reply.session_version = event.session_version
            _fill(reply, fold(events, len(event.endings)), event.endings, shows_reasoning)
    return reply


def _fill(
    reply: pb.GenerateResponse, answers: list[Answer], endings: tuple[Ending, ...], shows_reasoning: bool
) -> None:
    for i, (answer, ending) in enumerate(zip(answers, endings, strict=True)):
        into = reply if i == 0 else reply.more.add()
        into.message.CopyFrom(wire.message(answer.message(), shows_reasoning=shows_reasoning))
        into.finish_reason, into.stop_sequence = wire.REASONS[ending.reason], ending.stop_sequence
        into.logprobs.extend(wire.logprobs(answer.logprobs))
