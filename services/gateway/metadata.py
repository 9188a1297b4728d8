"""The call metadata that the gateway reads: the authorization header, the caller's trace, and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.core.errors import Unauthenticated


def authorization(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The header's value, None if absent. Raises Unauthenticated if it was sent more than once."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if len(values) > 1:
        raise Unauthenticated("send one authorization header")
    return None if not values else values[0] if isinstance(values[0], str) else None


def traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The header's value, "" if it is absent or was sent more than once."""
    values = [value for key, value in context.invocation_metadata() or () if key == "traceparent"]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""
