"""Runs a coroutine against an endpoint and gives its failures an exit code."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc

from services.cli.exits import BUSY, FAILED, REFUSED, UNREACHABLE, CliError
from services.cli.where import Target
from services.client import Client, HeadraceError

T = TypeVar("T")

CODES = {
    grpc.StatusCode.UNAVAILABLE: UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BUSY,
    grpc.StatusCode.UNAUTHENTICATED: REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: REFUSED,
    grpc.StatusCode.INVALID_ARGUMENT: REFUSED,
    grpc.StatusCode.NOT_FOUND: REFUSED,
    grpc.StatusCode.ABORTED: REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: REFUSED,
}


def call(target: Target, ask: Callable[[Client], Awaitable[T]]) -> T:
    """The answer of one exchange. Raises CliError."""
    warn_if_exposed(target)

    async def exchange() -> T:
        async with target.client() as client:
            return await ask(client)

    return run(exchange(), target)


def run(work: Coroutine[Any, Any, T], target: Target) -> T:
    try:
        return asyncio.run(work)
    except HeadraceError as error:
        raise explained(error, target) from error


def explained(error: HeadraceError, target: Target) -> CliError:
    code = CODES.get(error.code, FAILED)
    if code == UNREACHABLE and not error.reached:
        what = f"{target.address} does not answer"
        return CliError(what, "See `headrace status`, or bring it up with `headrace up`.", code=code)
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        do = "Check HEADRACE_API_KEY; `headrace keys create` makes a new key."
        return CliError(error.message, do, code=code)
    do = f"Try again in {error.retry_after:g} s." if error.retry_after else ""
    return CliError(error.message, do, code=code)


def warn_if_exposed(target: Target) -> None:
    if target.exposed:
        hint = f"the key goes to {target.address} unencrypted; use https://{target.address} if it serves TLS"
        print(f"headrace: warning: {hint}", file=sys.stderr)
