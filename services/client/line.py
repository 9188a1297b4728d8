"""What all calls of a client share: where they go, with which key, and how often a broken one is tried again."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.client.endpoints import Endpoint, Endpoints
from services.client.errors import HeadraceError, of
from services.client.retry import Budget, Resume, Tries, keyless, passing, repeatable
from services.client.tracing import traced

LAST_WORDS = 1.0  # seconds that closing a client leaves to what it still has to say


@dataclass(slots=True)
class Line:
    endpoints: Endpoints
    metadata: tuple[tuple[str, str], ...]
    resume: Resume | None
    seconds: float  # for a short call
    budget: Budget = field(default_factory=Budget)
    _closed: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def tries(self, timeout: float | None, *, resume: bool) -> Tries:
        return Tries(self.resume if resume else None, self.budget, timeout)

    async def ask(
        self,
        method: Callable[[Endpoint], Any],
        request: Any,
        *,
        timeout: float | None,
        resume: bool = True,
        drawn: bool = False,
    ) -> Any:
        """The reply to a request that can be repeated: it has a key, `drawn` here or not, or changes nothing twice."""
        tries = self.tries(timeout, resume=resume)
        while True:
            endpoint = self.endpoints.current
            try:
                reply = await method(endpoint)(request, metadata=traced(self.metadata), timeout=tries.left())
            except grpc.aio.AioRpcError as error:
                lost = of(error)
                self.budget.answered |= lost.reached
                if keyless(request, lost, tries, drawn=drawn and resume):
                    continue
                if not (passing(lost) and repeatable(request, lost)):
                    raise lost from error
                self.endpoints.leave(endpoint)
                await tries.again(lost, running=False)
            else:
                tries.moved()
                return reply

    def end(self, turn: str) -> None:
        """Cancels the turn in the background: its reader has left, and its engine is to know at once."""
        if not self._closed:
            self._later(self._end(turn))

    async def _end(self, turn: str) -> None:
        try:
            request = pb.CancelTurnRequest(turn=turn)
            await self.ask(lambda to: to.inference.CancelTurn, request, timeout=self.seconds)
        except HeadraceError:
            return  # it has ended, or ends when it has lingered

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self._closed = True
        await self.settle()
        for task in self._tasks:
            task.cancel()
        await self.endpoints.close()

    async def settle(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS)
