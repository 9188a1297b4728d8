"""Where errors become statuses: nothing else in the gateway speaks of gRPC codes, and no exception text gets past."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.core.errors import MAX_VIOLATIONS, HeadraceError, Internal, InvalidRequest, StoreAway, Violation
from services.core.outcome import Outcome
from services.telemetry.logs import log
from services.telemetry.metrics import REQUESTS

DOMAIN = "headrace"
MAX_TEXT = 1024  # characters; a longer status text would make the whole status undeliverable

CODES = {
    Outcome.COMPLETED: grpc.StatusCode.OK,
    Outcome.CANCELLED: grpc.StatusCode.CANCELLED,
    Outcome.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Outcome.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Outcome.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Outcome.CONFLICT: grpc.StatusCode.ABORTED,
    Outcome.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Outcome.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Outcome.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Outcome.UNSAFE_INPUT: grpc.StatusCode.PERMISSION_DENIED,
    Outcome.REFUSED_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.NO_REPLICA: grpc.StatusCode.UNAVAILABLE,
    Outcome.ENGINE_LOST: grpc.StatusCode.UNAVAILABLE,
    Outcome.STORE_AWAY: grpc.StatusCode.UNAVAILABLE,
    Outcome.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Outcome.INTERNAL: grpc.StatusCode.INTERNAL,
}


class Malformed:
    """Stands for a request whose bytes are not the message they should be."""


def status_of(error: HeadraceError) -> status_pb2.Status:
    """google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they apply. At most 4 KB of details."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.outcome.upper(), domain=DOMAIN)]
    if isinstance(error, InvalidRequest):
        details.append(_bad_request(error))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=CODES[error.outcome].value[0], message=error.message[:MAX_TEXT])
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _bad_request(error: InvalidRequest) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description[:200])
            for v in error.violations[:MAX_VIOLATIONS]
        ]
    )


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: HeadraceError) -> NoReturn:
    status = status_of(error)
    metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(CODES[error.outcome], status.message, metadata)
    raise AssertionError("abort() raises")


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A decoding error raised inside grpc would reach the caller with its text; a value does not."""

    def checked(data: bytes) -> Any:
        try:
            return decode(data)
        except (DecodeError, UnicodeDecodeError):
            return Malformed()

    return checked


class Boundary(grpc.aio.ServerInterceptor):
    """Wraps every RPC: decoding errors, refusals and crashes become statuses with details, each counted once."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/headrace."):
            return handler
        method = handler_call_details.method.removeprefix("/headrace.v1.")
        decode = _decoder(handler.request_deserializer)  # type: ignore[arg-type]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _stream(method, handler.unary_stream), decode, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _unary(method, handler.unary_unary), decode, handler.response_serializer
        )


def _unary(method: str, behave: Any) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async with _Guard(method, request, context):
            return await behave(request, context)

    return call


def _stream(method: str, behave: Any) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with _Guard(method, request, context):
            await behave(request, context)

    return call


class _Guard:
    """Around one RPC. Its exit is one of the two places that catch everything."""

    def __init__(self, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._method = method
        self._request = request
        self._context = context

    async def __aenter__(self) -> None:
        if isinstance(self._request, Malformed):
            await self._refuse(
                InvalidRequest(Violation("request", "not a valid message of this method's type"))
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            self._count(Outcome.COMPLETED)
        elif self._context.cancelled():
            # Nobody hears a status any more, and what a write to a caller who left raises is no crash.
            self._count(error.outcome if isinstance(error, HeadraceError) else Outcome.CANCELLED)
        elif isinstance(error, HeadraceError):
            await self._refuse(error)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            log.error("rpc crashed", method=self._method, exc_info=(kind, error, error.__traceback__))
            await self._refuse(Internal("internal error"))
        else:
            self._count(Outcome.CANCELLED)

    async def _refuse(self, error: HeadraceError) -> NoReturn:
        self._count(error.outcome)
        if isinstance(error, StoreAway):
            log.warning("refused for the store", method=self._method, reason=error.message)
        await refuse(self._context, error)

    def _count(self, outcome: Outcome) -> None:
        REQUESTS.labels(self._method, outcome).inc()
