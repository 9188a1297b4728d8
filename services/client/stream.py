"""A turn being read: an async iterator of its events that survives the connection it came by."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.client import messages
from services.client.errors import HeadraceError, of, of_event
from services.client.events import (
    Delta,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    ToolCallDelta,
    Used,
    Waiting,
    from_wire,
)
from services.client.line import Line
from services.client.retry import keyless, passing, repeatable
from services.client.rewind import Told
from services.client.tracing import traced

MISPLACED = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE)


class Stream:
    """Iterate it for the events; the turn begins with the first. Leaving early, or `cancel`, ends the turn.

        async with client.stream("Hello") as stream:
            async for event in stream: ...

    A connection that breaks is made again, to the next endpoint if there are several, and the events go on with
    none missing, twice or out of order. (`epoch`, `seq`) is the position in `turn`; `resumes` counts how often it
    was taken up again.
    """

    def __init__(
        self,
        line: Line,
        begin: pb.GenerateRequest | pb.ResumeTurnRequest,
        *,
        timeout: float | None,
        resume: bool,
        drawn: bool = False,
    ) -> None:
        self._line = line
        self._begin = begin if isinstance(begin, pb.GenerateRequest) else None
        self._tries = line.tries(timeout, resume=resume)
        self._resume = resume and line.resume is not None
        self._drawn = drawn and self._resume  # the key is the client's own
        self._endpoint = line.endpoints.current
        self._call: Any = None
        self._events = self._read()
        self._reading = False  # this attempt has brought an event
        self._seen = self._started = self._ended = self._cancelled = False
        self._failure: HeadraceError | None = None
        self._due: list[Event] = []
        self.turn, self.seq, self.epoch = "", 0, 0
        if isinstance(begin, pb.ResumeTurnRequest):
            self.turn, self.seq, self.epoch = begin.turn, begin.after_seq, begin.epoch
        self._again = not self._begin  # the next attempt resumes
        self._told = Told(whole=self.seq == 0)
        self._furthest = (self.epoch, self.seq)
        self.resumes = 0

    def cancel(self) -> None:
        """Ends the turn at the engine; the iteration raises CANCELLED. Does nothing to a turn that has ended."""
        if self._ended or self._cancelled:
            return
        self._cancelled = True
        self._leave(end=True)

    def _leave(self, *, end: bool) -> None:
        if self._call is not None:
            self._call.cancel()
        if end and self.turn and not self._ended:
            self._line.end(self.turn)
        self._ended = True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[Event, None]:
        try:
            while not self._ended:
                self._open()
                try:
                    async for wire in self._call:
                        for event in self._take(wire):
                            yield event
                    await self._recover(HeadraceError("the stream broke off", code=grpc.StatusCode.UNKNOWN))
                except grpc.aio.AioRpcError as error:
                    await self._recover(of(error))
            if self._cancelled:
                raise _cancelled_here()
        except (GeneratorExit, asyncio.CancelledError) as left:
            if isinstance(left, GeneratorExit) or _is_cancelled():
                # A turn that another call began is not this reader's to end.
                self._leave(end=self._begin is not None)
                raise
            raise _cancelled_here() from None

    def _open(self) -> None:
        self._reading, self._failure = False, None
        self._endpoint = self._line.endpoints.current
        options = {"metadata": traced(self._line.metadata), "timeout": self._tries.left()}
        if self._again or self._begin is None:
            position = pb.ResumeTurnRequest(turn=self.turn, after_seq=self.seq, epoch=self.epoch)
            self._call = self._endpoint.inference.ResumeTurn(position, **options)
        else:
            self._call = self._endpoint.inference.StreamGenerate(self._begin, **options)

    def _take(self, wire: pb.StreamEvent) -> Iterator[Event]:
        self._arrived(wire)
        while self._due:
            yield self._due.pop()
        event = from_wire(wire)
        match event:
            case Started():
                self.turn, self._again = event.turn, True
                if not self._started:
                    yield event
                self._started = True
            case Finished():
                yield from self._told.ended(event.seq)
                self._ended = True
                yield event
            case Used() | Waiting():
                yield event
            case Delta() | ReasoningDelta() | ToolCallDelta():
                yield from self._told.heard(event)
            case _:
                yield from self._aside(wire)

    def _arrived(self, wire: pb.StreamEvent) -> None:
        if not self._reading and self._seen:
            self.resumes += 1
        self._reading = self._seen = True
        self.seq, self.epoch = wire.seq, wire.epoch
        if (self.epoch, self.seq) > self._furthest:
            self._furthest = (self.epoch, self.seq)
            self._tries.moved()

    def _aside(self, wire: pb.StreamEvent) -> Iterator[Event]:
        kind = wire.WhichOneof("event")
        if kind == "rewind":
            answers = [messages.from_wire(answer) for answer in wire.rewind.answers]
            yield from self._told.rewound(answers, wire.seq)
        elif kind == "error":
            self._failure = of_event(wire.error)

    async def _recover(self, lost: HeadraceError) -> None:
        """Returns when the turn is to be read again, or has been read to its end."""
        if self._ended and not self._cancelled:
            return
        self._line.budget.answered |= lost.reached
        if self._failure is not None and self.turn:
            raise lost if lost.reached else self._failure
        if not self._cancelled and keyless(self._begin, lost, self._tries, drawn=self._drawn):
            return
        refused = self._again and not self._reading  # the resume, and not the turn
        if refused and self._seen and self._resume and lost.code in MISPLACED:
            self._misplaced(lost)
        elif not self._cancelled and (self._passes(lost) or (refused and lost.retry_after is not None)):
            self._line.endpoints.leave(self._endpoint)
        else:
            raise lost
        await self._tries.again(lost, running=bool(self.turn))

    def _passes(self, lost: HeadraceError) -> bool:
        return passing(lost) and (self._again or repeatable(self._begin, lost))

    def _misplaced(self, lost: HeadraceError) -> None:
        """The endpoint does not know the turn, or not this position: from its beginning, by its key if need be."""
        if lost.code is grpc.StatusCode.NOT_FOUND:
            if self._begin is None:
                raise lost
            self._again = False
        self.seq = self.epoch = 0
        self._furthest = (0, 0)
        self._due = list(self._told.rewound((), 0))


def _cancelled_here() -> HeadraceError:
    return HeadraceError("the stream was cancelled here", code=grpc.StatusCode.CANCELLED)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
