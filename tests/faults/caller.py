"""A client that keeps a history: it resumes at another gateway what broke, and repeats what was never begun."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc, sessions_pb2_grpc
from tests.faults.history import Attempt, History, Position, Seen
from tests.support.gateway import user

PAUSE = 0.1  # seconds between two attempts
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
FINAL = {
    "NOT_FOUND",
    "INVALID_ARGUMENT",
    "OUT_OF_RANGE",
    "FAILED_PRECONDITION",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "INTERNAL",
    "CANCELLED",
}


@dataclass(slots=True)
class Caller:
    """One client of one tenant. It knows the gateways by address and tries them in turn."""

    tenant: str
    auth: tuple[tuple[str, str], ...]
    gateways: Sequence[str]
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    options: tuple[tuple[str, Any], ...] = CHANNEL
    silence: float | None = None  # seconds without an event after which it tries another gateway

    def channel(self, gateway: str) -> grpc.aio.Channel:
        if gateway not in self.channels:
            self.channels[gateway] = grpc.aio.insecure_channel(gateway, options=self.options)
        return self.channels[gateway]

    def inference(self, gateway: str = "") -> Any:
        return inference_pb2_grpc.InferenceStub(self.channel(gateway or self.gateways[0]))

    def sessions(self, gateway: str = "") -> Any:
        return sessions_pb2_grpc.SessionsStub(self.channel(gateway or self.gateways[0]))

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()

    def history(self, prompt: str, key: str = "", seconds: float = 60) -> History:
        now = time.monotonic()
        return History(self.tenant, prompt, key, now, now + seconds)

    async def run(self, history: History, *, first: int = 0, patient: bool = True, **fields: Any) -> History:
        """Runs the turn to its end, from whichever gateway answers. Without patience one attempt is all."""
        request = pb.GenerateRequest(messages=[user(history.prompt)], idempotency_key=history.key, **fields)
        turn = first
        while (left := history.deadline - time.monotonic()) > 0:
            attempt = await self._attempt(history, request, self.gateways[turn % len(self.gateways)], left)
            if patient and not history.turn and attempt.refused:
                history.events.clear()  # the refusal of a turn that never was: it says when to ask again
            if history.terminal is not None or attempt.status in FINAL or not patient:
                break
            turn += 1
            await asyncio.sleep(max(PAUSE, attempt.refused))
        history.changed()
        return history

    async def read_again(self, history: History, gateway: str, into: History | None = None) -> History:
        """The same turn from its beginning, as this gateway has it."""
        again = into or self.history(history.prompt, history.key)
        request = pb.ResumeTurnRequest(turn=history.turn)
        while not again.events and (left := again.deadline - time.monotonic()) > 0:
            attempt = Attempt(time.monotonic(), gateway, "ResumeTurn", Position(0, 0))
            again.attempts.append(attempt)
            call = self.inference(gateway).ResumeTurn(request, metadata=self.auth, timeout=left)
            await self._listen(again, attempt, call)
            if attempt.status != "UNAVAILABLE":
                break
            await asyncio.sleep(max(PAUSE, attempt.refused))
        return again

    async def _attempt(
        self, history: History, request: pb.GenerateRequest, gateway: str, left: float
    ) -> Attempt:
        stub, after = self.inference(gateway), history.position
        method = "ResumeTurn" if history.turn else "StreamGenerate"
        attempt = Attempt(time.monotonic(), gateway, method, after)
        history.attempts.append(attempt)
        history.changed()
        if history.turn:
            resume = pb.ResumeTurnRequest(turn=history.turn, after_seq=after.seq, epoch=after.epoch)
            call = stub.ResumeTurn(resume, metadata=self.auth, timeout=left + 2)
        else:
            call = stub.StreamGenerate(request, metadata=self.auth, timeout=left)
        await self._listen(history, attempt, call)
        return attempt

    async def _listen(self, history: History, attempt: Attempt, call: Any) -> None:
        try:
            while (event := await self._next(call)) is not grpc.aio.EOF:
                history.add(seen(event))
            attempt.status = "OK"
        except grpc.aio.AioRpcError as error:
            attempt.status, attempt.details = error.code().name, error.details() or ""
            attempt.reason, attempt.refused = details_of(error)
        except TimeoutError:
            attempt.status, attempt.details = "SILENT", f"nothing for {self.silence:g} s"
        finally:
            attempt.ended = time.monotonic()
            call.cancel()
        history.changed()

    async def _next(self, call: Any) -> Any:
        async with asyncio.timeout(self.silence):
            return await call.read()


@asynccontextmanager
async def calling(
    tenant: str, auth: tuple[tuple[str, str], ...], gateways: Sequence[str]
) -> AsyncIterator[Caller]:
    caller = Caller(tenant, auth, gateways)
    try:
        yield caller
    finally:
        await caller.close()


def seen(event: pb.StreamEvent) -> Seen:
    kind = event.WhichOneof("event") or ""
    told: dict[str, Any] = {}
    if kind == "delta":
        told = {"text": event.delta.text, "tokens": event.delta.tokens}
    elif kind == "rewind":
        told["text"] = "".join(part.text for answer in event.rewind.answers for part in answer.content)
    elif kind == "usage":
        told["tokens"] = event.usage.completion_tokens
    elif kind == "started":
        told = {"turn": event.started.turn, "resumable": event.started.resumable}
    elif kind == "finished":
        told["confirmed"] = event.finished.durability == pb.DURABILITY_CONFIRMED
    elif kind == "error":
        told["outcome"] = event.error.outcome
    return Seen(time.monotonic(), Position(event.epoch, event.seq), kind, **told)


def details_of(error: grpc.aio.AioRpcError) -> tuple[str, float]:
    """Reason and seconds to wait, of a refusal; ("", 0) of what no gateway said."""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if not isinstance(packed, bytes):
        return "", 0.0
    reason, wait = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    told = status_pb2.Status.FromString(packed).details
    for detail in told:
        if not detail.Unpack(reason):
            detail.Unpack(wait)
    return reason.reason, wait.retry_delay.ToMilliseconds() / 1000
