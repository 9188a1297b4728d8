"""The one exception of this package: what the endpoint said, with its google.rpc details read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from services.api.headrace.v1 import inference_pb2 as pb

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that the endpoint refused, and what would be right."""

    field: str
    description: str


class HeadraceError(Exception):
    """A call that did not end well.

    `outcome` is the endpoint's name for it, for example REFUSED_FULL, or the gRPC code where the endpoint
    was not reached. `retry_after` is in seconds; None means that repeating the call does not help. `reached`
    says that it is the endpoint's own word, and not the transport's.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        outcome: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.outcome = outcome or code.name
        self.violations = violations
        self.retry_after = retry_after
        self.reached = bool(outcome)


def of(error: grpc.aio.AioRpcError) -> HeadraceError:
    """Reads the details; a status without any, such as the transport's own, gives its code and text."""
    outcome, violations, retry_after = "", list[Violation](), None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            outcome = _unpack(detail, error_details_pb2.ErrorInfo()).reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = _unpack(detail, error_details_pb2.BadRequest())
            violations += [Violation(each.field, each.description) for each in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = _unpack(detail, error_details_pb2.RetryInfo()).retry_delay
            retry_after = delay.seconds + delay.nanos / 1e9
    return HeadraceError(
        error.details() or error.code().name,
        code=error.code(),
        outcome=outcome.upper(),
        violations=tuple(violations),
        retry_after=retry_after,
    )


def of_event(error: pb.Error) -> HeadraceError:
    """What a turn ended with, as its journal says it."""
    return HeadraceError(
        error.message,
        code=CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        outcome=error.outcome.upper(),
        retry_after=error.retry_after_ms / 1000 if error.retry_after_ms else None,
    )


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    packed = dict(error.trailing_metadata() or ()).get(DETAILS)
    if not isinstance(packed, bytes):
        return []
    return list(status_pb2.Status.FromString(packed).details)


def _unpack(detail: Any, message: Any) -> Any:
    detail.Unpack(message)
    return message


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises HeadraceError where gRPC raises its own."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise of(error) from error
