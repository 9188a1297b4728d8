"""A client of one server, or of the master that sentinels name: each call once, within a budget, behind a breaker."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from services.store.breaker import Breaker


class Script:
    """A Lua script by its digest. A server that does not know it gets its text, once: nothing ran before."""

    def __init__(self, client: Any, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._client = client

    async def __call__(self, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        try:
            return await self._client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self._client.eval(self.text, len(keys), *keys, *args)


class Node(Redis):
    """`budget`: seconds that a call may take in all, the wait for a connection included."""

    breaker: Breaker
    budget: float
    call: Callable[[str], AbstractContextManager[object]]

    @classmethod
    def of(
        cls,
        pool: ConnectionPool,
        breaker: Breaker,
        budget: float,
        call: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> "Node":
        """`call` is entered around each call, with the command's name or "pipeline"."""
        node = cast(Node, cls.from_pool(pool))
        node.breaker, node.budget, node.call = breaker, budget, call
        return node

    async def masters(self) -> Sequence["Node"]:
        """The servers that hold the data: this one."""
        return (self,)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with self.breaker, self.call(str(args[0]).lower()):
            try:
                async with asyncio.timeout(self.budget), self.living():
                    return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except ReadOnlyError:
                await self.leave()
                raise

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """A connection that was reset while idle is a lost one. uvloop tells so by a RuntimeError, which redis-py
        takes for a mistake of ours; its idle neighbours are as dead."""
        try:
            yield
        except RuntimeError as error:
            if "handler is closed" not in str(error):
                raise
            await self.leave()
            raise ConnectionError("the connection was reset while it was idle") from None

    async def leave(self) -> None:
        """Drops idle connections: what was the master is none now, and its name may point elsewhere."""
        await self.connection_pool.disconnect(inuse_connections=False)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "NodePipeline":
        pipe = NodePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.node = self
        return pipe

    def register_script(self, script: Any) -> Any:
        return Script(self, script)


class NodePipeline(Pipeline):
    node: Node

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The replies in order. With `raise_on_error` the first refusal is raised, as the server said it."""
        try:
            with self.node.breaker, self.node.call("pipeline"):
                async with asyncio.timeout(self.node.budget), self.node.living():
                    replies = await super().execute(raise_on_error=False)
        except ResponseError as refusal:  # of a whole transaction
            replies, raise_on_error = [refusal], True
        errors = [_bare(reply) for reply in replies if isinstance(reply, Exception)]
        if any(isinstance(error, ReadOnlyError) for error in errors):
            await self.node.leave()
        if errors and raise_on_error:
            raise errors[0]
        return replies


def _bare(error: Exception) -> Exception:
    """Without the command and its arguments, which redis-py adds: they hold what callers said."""
    if (text := str(error)).startswith("Command #"):
        error.args = (text.rpartition("caused error: ")[2],)
    return error
