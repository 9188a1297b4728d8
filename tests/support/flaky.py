"""An endpoint on real sockets that plays a script, and whose connections can be cut."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc
from services.core.errors import HeadraceError
from services.gateway.boundary import refuse
from tests.support.proxy import Proxy, running_proxy


@dataclass(frozen=True, slots=True)
class Status:
    """The call ends with this status, as a transport says it: without details."""

    code: grpc.StatusCode


class Hold:
    """The call goes on without another event."""


HOLD = Hold()
LOST = Status(grpc.StatusCode.UNAVAILABLE)
Item = pb.StreamEvent | pb.GenerateResponse | pb.Turn | HeadraceError | Status | Hold
Context = grpc.aio.ServicerContext[Any, Any]


class Flaky(inference_pb2_grpc.InferenceServicer):
    """Each call plays the next of `calls`, or what follows its position in `journal`; `asked` is what came.

    CancelTurn is answered outside of the script.
    """

    def __init__(self, calls: Sequence[Sequence[Item]], journal: Sequence[Item]) -> None:
        self.calls = list(calls)
        self.journal = journal
        self.proxy: Proxy
        self.asked: list[Any] = []
        self.cancelled: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"

    async def StreamGenerate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[Any]:
        async for item in self._play(request, context):
            yield item

    async def ResumeTurn(self, request: pb.ResumeTurnRequest, context: Context) -> AsyncIterator[Any]:
        async for item in self._play(request, context):
            yield item

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> Any:
        return await anext(self._play(request, context))

    async def StartTurn(self, request: pb.GenerateRequest, context: Context) -> Any:
        return await anext(self._play(request, context))

    async def GetTurn(self, request: pb.GetTurnRequest, context: Context) -> Any:
        return await anext(self._play(request, context))

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.Turn:
        self.cancelled.append(request.turn)
        return pb.Turn(id=request.turn, state=pb.Turn.FAILED)

    async def _play(self, request: Any, context: Context) -> AsyncIterator[Any]:
        self.asked.append(request)
        after = request.after_seq if isinstance(request, pb.ResumeTurnRequest) else 0
        for item in self.journal[after:] or self.calls.pop(0):
            if isinstance(item, HeadraceError):
                await refuse(context, item)
            elif isinstance(item, Status):
                await context.abort(item.code, "the script says so")
            elif isinstance(item, Hold):
                await asyncio.Event().wait()
            else:
                yield item


@asynccontextmanager
async def flaky(*calls: Sequence[Item], journal: Sequence[Item] = ()) -> AsyncIterator[Flaky]:
    played, server = Flaky(calls, journal), grpc.aio.server()
    inference_pb2_grpc.add_InferenceServicer_to_server(played, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with running_proxy("127.0.0.1", port) as played.proxy:
            yield played
    finally:
        await server.stop(0)


def started(turn: str = "t1", seq: int = 1, epoch: int = 1) -> pb.StreamEvent:
    return pb.StreamEvent(seq=seq, epoch=epoch, started=pb.Started(turn=turn, model="m", resumable=True))


def delta(seq: int, text: str, tokens: int = 1, epoch: int = 1) -> pb.StreamEvent:
    return pb.StreamEvent(seq=seq, epoch=epoch, delta=pb.Delta(text=text, tokens=tokens))


def rewind(seq: int, *texts: str, epoch: int = 2) -> pb.StreamEvent:
    answers = [pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.Part(text=text)]) for text in texts]
    return pb.StreamEvent(seq=seq, epoch=epoch, rewind=pb.Rewind(answers=answers))


def finished(seq: int, epoch: int = 1) -> pb.StreamEvent:
    return pb.StreamEvent(seq=seq, epoch=epoch, finished=pb.Finished(reason=pb.FINISH_REASON_STOP))
