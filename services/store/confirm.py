"""Writes that a replica has before they count: what survives the loss of the master."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from services.store.node import Script


class Confirmed(NamedTuple):
    reply: Any  # the server's, to the write
    kept: bool  # as many replicas as asked for have it


async def confirmed(client: Any, *write: Any, replicas: int = 1, seconds: float = 0.1) -> Confirmed:
    """Sends a write, and WAIT behind it on the same connection: WAIT answers for the writes of its own
    connection only, and on another it would say yes at once.

    `seconds` is the most that a stalled replica costs, above 0 and below the client's budget. Too few replicas
    in time is `kept=False`: the write stands, but a failover may lose it. Raises as every call of the client.
    """
    async with client.pipeline(transaction=False) as pipe:
        pipe.execute_command(*write)
        pipe.execute_command("WAIT", replicas, max(1, round(seconds * 1000)))
        reply, reached = await pipe.execute(raise_on_error=False)
    if isinstance(reply, Exception):
        raise reply
    return Confirmed(reply, isinstance(reached, int) and reached >= replicas)


async def confirmed_script(
    client: Any,
    script: Script,
    keys: Sequence[Any],
    args: Sequence[Any],
    *,
    replicas: int = 1,
    seconds: float = 0.1,
) -> Confirmed:
    """As `confirmed`, for a script; a server that does not know it gets its text."""
    tail = (len(keys), *keys, *args)
    try:
        return await confirmed(client, "EVALSHA", script.sha, *tail, replicas=replicas, seconds=seconds)
    except NoScriptError:
        return await confirmed(client, "EVAL", script.text, *tail, replicas=replicas, seconds=seconds)
