"""A client of a Redis or Valkey cluster: a Node for each master, and the table of who owns which hash slot.

Redirects are followed, since a redirected command did not run; nothing else is sent twice. redis-py's own
cluster client repeats by default, asks for the table in the way of calls, and runs a thread with a loop for
each command of a transaction, so only its verbs are used here.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from redis.commands import AsyncCoreCommands
from redis.crc import key_slot
from redis.event import EventDispatcher
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    CrossSlotTransactionError,
    MovedError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from services.core.clock import Clock
from services.core.errors import StoreAway
from services.store.address import Place
from services.store.breaker import SILENCE
from services.store.node import Node, Script

SLOTS = 16384
HOPS = 4  # redirects of one command
REFRESH = 0.5  # seconds at least between two looks at the table
SCRIPTS = ("EVALSHA", "EVAL")


class Command(NamedTuple):
    args: tuple[Any, ...]
    options: dict[str, Any]


class Verbs(AsyncCoreCommands):
    """redis-py's verbs, each of which ends in `execute_command`."""

    _is_async_client: Literal[True] = True
    _event_dispatcher = EventDispatcher()  # demanded by the verbs' types; nothing here sends an event


class Cluster(Verbs):
    """`open_node(place)` makes the client of one server. Each has a breaker of its own: one dead master fails
    the calls for its slots and no others."""

    def __init__(self, seeds: Iterable[Place], open_node: Callable[[Place], Node], clock: Clock) -> None:
        self._open = open_node
        self._clock = clock
        self._seeds = tuple(seeds)
        self._nodes: dict[Place, Node] = {}
        self._owners: list[Place | None] = []  # by slot; empty before the first look
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def masters(self) -> Sequence[Node]:
        """The servers that hold the data. Raises as every call does."""
        await self._ready()
        return [self._node(place) for place in sorted({owner for owner in self._owners if owner})]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        (reply,) = await self.run([Command(args, options)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":
        return ClusterPipeline(self, transaction)

    def register_script(self, script: Any) -> Any:
        return Script(self, script)

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        for node in await self.masters():
            async for key in node.scan_iter(*args, **options):
                yield key

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        for node in self._nodes.values():
            await node.aclose()

    async def run(self, commands: Sequence[Command], wait: Command | None = None) -> list[Any]:
        """Replies and errors in order; one round trip to each owner of a key. `wait`, a WAIT, follows the writes
        on their connections; the reply to it comes last and is the smallest there was."""
        await self._ready()
        replies: list[Any] = [None] * len(commands)
        reached: list[Any] = []
        left = [(self._owner(_slot(command)), index) for index, command in enumerate(commands)]
        for _ in range(HOPS):
            groups = [
                (place, [i for _, i in pairs]) for place, pairs in groupby(sorted(left), lambda p: p[0])
            ]
            sent = [self._send(place, [commands[i] for i in indices], wait) for place, indices in groups]
            come = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent)
            for (_, indices), answers in zip(groups, come, strict=True):
                reached += answers[len(indices) :]
                for index, answer in zip(indices, answers, strict=False):
                    replies[index] = answer
            left = [(self._moved(r, at), i) for at, i in left if isinstance(r := replies[i], MovedError)]
            if not left:
                break
        for index, reply in enumerate(replies):
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                replies[index], reached = await self._ask(reply, commands[index]), [0]
        return [*replies, _least(reached)] if wait else replies

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """All commands or none, at the one owner of their keys. Raises CrossSlotTransactionError."""
        await self._ready()
        if len(slots := {_slot(command) for command in commands}) > 1:
            raise CrossSlotTransactionError("the keys of a transaction are in several hash slots")
        place = self._owner(slots.pop())
        for _ in range(HOPS):
            try:
                pipe = _filled(self._node(place).pipeline(transaction=True), commands)
                return list(await pipe.execute(raise_on_error=False))
            except MovedError as moved:
                place = self._moved(moved, place)
            except (*SILENCE, StoreAway):
                self._look_soon()
                raise
        raise ClusterError("the cluster sends a transaction from server to server")

    async def _send(self, place: Place, commands: Sequence[Command], wait: Command | None) -> list[Any]:
        sent = [*commands, wait] if wait else commands
        try:
            if len(sent) == 1:
                replies = [await self._node(place).execute_command(*sent[0].args, **sent[0].options)]
            else:
                pipe = _filled(self._node(place).pipeline(transaction=False), sent)
                replies = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, StoreAway) as error:
            replies = [error] * len(sent)
        if any(isinstance(reply, (*SILENCE, StoreAway)) for reply in replies):
            self._look_soon()
        return replies

    async def _ask(self, ask: AskError, command: Command) -> Any:
        """A slot under way to another server: that one takes the command if it is told so first."""
        pipe = self._node(Place(ask.host, ask.port)).pipeline(transaction=False)
        try:
            return (await _filled(pipe, [Command(("ASKING",), {}), command]).execute(raise_on_error=False))[1]
        except (RedisError, OSError, StoreAway) as error:
            return error

    def _node(self, place: Place) -> Node:
        if place not in self._nodes:
            self._nodes[place] = self._open(place)
        return self._nodes[place]

    def _owner(self, slot: int) -> Place:
        owner = self._owners[slot]
        if owner is None:
            self._look_soon()
            raise ClusterDownError("no server of the cluster has the key's slot")
        return owner

    def _moved(self, moved: MovedError, place: Place) -> Place:
        owner = Place(moved.host or place.host, moved.port)
        self._owners[moved.slot_id] = owner
        self._look_soon()
        return owner

    async def _ready(self) -> None:
        if not self._owners:
            # Shielded: the look belongs to all calls that wait for it.
            await asyncio.shield(self._look_now())

    def _look_soon(self) -> None:
        if self._clock.monotonic() - self._looked >= REFRESH:
            self._look_now()

    def _look_now(self) -> asyncio.Task[None]:
        if self._looking is None or self._looking.done():
            self._looked = self._clock.monotonic()
            self._looking = asyncio.create_task(self._look(), name="cluster table")
            # Read, so that a look that failed behind everybody's back is not reported as lost.
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._looking

    async def _look(self) -> None:
        places = list(self._nodes.keys() | set(self._seeds))
        random.shuffle(places)
        failure: Exception = ClusterDownError("the cluster has no server")
        for place in places:
            try:
                ranges = await self._node(place).execute_command("CLUSTER", "SLOTS")
            except ResponseError as error:
                failure = RedisClusterException(f"{place} does not say who owns which slot: {error}")
            except (RedisError, OSError, StoreAway) as error:
                failure = error
            else:
                return await self._adopt(ranges, place)
        raise failure

    async def _adopt(self, ranges: Sequence[Any], told_by: Place) -> None:
        owners: list[Place | None] = [None] * SLOTS
        for first, last, master, *_ in ranges:
            place = Place(_text(master[0]) or told_by.host, int(master[1]))
            owners[int(first) : int(last) + 1] = [place] * (int(last) - int(first) + 1)
        self._owners = owners
        known = {*filter(None, owners), *self._seeds}
        for gone in [place for place in self._nodes if place not in known]:
            await self._nodes.pop(gone).leave()


class ClusterPipeline(Verbs):
    """Commands that travel together. Without a transaction they may go to several servers; a WAIT among them
    covers them all and its reply is the smallest."""

    def __init__(self, cluster: Cluster, transaction: bool) -> None:
        self._cluster = cluster
        self._transaction = transaction
        self._commands: list[Command] = []

    async def __aenter__(self) -> "ClusterPipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()

    def __len__(self) -> int:
        return len(self._commands)

    def __bool__(self) -> bool:
        return True

    def execute_command(self, *args: Any, **options: Any) -> "ClusterPipeline":
        self._commands.append(Command(args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As NodePipeline's: without `raise_on_error` an error stands in the place of its reply, the silence of
        one server among them."""
        commands, self._commands = self._commands, []
        if not commands:
            return []
        if self._transaction:
            replies = await self._cluster.transact(commands)
        else:
            wait = commands.pop() if commands[-1].args[0] == "WAIT" else None
            replies = await self._cluster.run(commands, wait)
        if raise_on_error and (errors := [reply for reply in replies if isinstance(reply, Exception)]):
            raise errors[0]
        return replies


def _filled(pipe: Any, commands: Sequence[Command]) -> Any:
    for command in commands:
        pipe.execute_command(*command.args, **command.options)
    return pipe


def _least(reached: Sequence[Any]) -> Any:
    """The first error, else the smallest count."""
    return next((r for r in reached if isinstance(r, Exception)), None) or min(reached, default=0)


def _slot(command: Command) -> int:
    """Of the first key: what the adapters send has one key, or several in one slot."""
    args = command.args
    at = 3 if args[0] in SCRIPTS else args.index("STREAMS") + 1 if args[0] == "XREAD" else 1
    if len(args) <= at:
        raise RedisClusterException(f"{args[0]} names no key: a cluster does not know where to send it")
    key = args[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
