"""The client: channels to an endpoint, or to several, with one API key."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, Unpack

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import models_pb2
from services.client import turns
from services.client.endpoints import Endpoints, Tls
from services.client.errors import translated
from services.client.line import Line
from services.client.messages import Messages, Wish, asked, request
from services.client.retry import Resume
from services.client.sessions import Sessions
from services.client.stream import Stream
from services.client.turns import Answer, Turn

ALWAYS = Resume()


@dataclass(frozen=True, slots=True)
class Replica:
    name: str
    engine: str
    connected: bool
    draining: bool
    running: int
    waiting: int
    capacity: int
    kv_use: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the autoscaler decided `age` seconds ago: to ask for `desired` replicas, `current` run. `held_because`:
    why a change that is wanted is not made; empty if none is. `wanted`: replicas that each signal asks for."""

    desired: int
    current: int
    reason: str
    held_because: str
    age: float
    wanted: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ScalingChange:
    """Of the replicas asked for. `at`: seconds since 1970."""

    before: int
    after: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Model:
    """`scaling` is None where replicas are not scaled, or nothing was heard of it lately; `changes`: newest first."""

    name: str
    revision: str
    context_length: int
    replicas: tuple[Replica, ...]
    tools: bool = False
    reasoning: bool = False
    effort: bool = False
    scaling: Scaling | None = None
    changes: tuple[ScalingChange, ...] = ()


class Client:
    """Talks to a Headrace endpoint, or to several that share a store: "a:50051,b:50051", or a list of them.

    async with Client("127.0.0.1:50051", key) as client:
        async for event in client.stream("What is the capital of France?"):
            ...

    Raises ValueError for an endpoint, a key or PEM files that no call could be made with; every method raises
    HeadraceError. `timeout` is in seconds, for each call; a turn has none by default, and its
    timeout is for the whole of it, however often its connection breaks. `resume` says how broken calls are taken up
    again; None, or `resume=False` for one call, raises instead.
    """

    def __init__(
        self,
        endpoint: str | Sequence[str],
        api_key: str,
        *,
        tls: Tls | None = None,
        timeout: float = 30.0,
        resume: Resume | None = ALWAYS,
        draw_key: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the API key has characters that no header can carry")
        metadata = (("authorization", f"Bearer {api_key}"),)
        self._line = Line(Endpoints(endpoint, tls), metadata, resume, timeout)
        self._short = {"metadata": metadata, "timeout": timeout}
        self._draw_key = draw_key

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._line.close()

    async def settle(self) -> None:
        """Waits, for 1 s at most, until the endpoint has been told of turns that were left."""
        await self._line.settle()

    @property
    def sessions(self) -> Sessions:
        return Sessions(self._line.endpoints.current.sessions, self._short)

    def stream(
        self, messages: Messages, *, timeout: float | None = None, resume: bool = True, **wish: Unpack[Wish]
    ) -> Stream:
        """Runs a turn and yields its events as they come."""
        begin = asked(messages, wish, self._draw_key(), timeout)
        drawn = not wish.get("idempotency_key")
        return Stream(self._line, begin, timeout=timeout, resume=resume, drawn=drawn)

    async def generate(
        self, messages: Messages, *, timeout: float | None = None, resume: bool = True, **wish: Unpack[Wish]
    ) -> Answer:
        """Runs a turn to its end."""
        begin = asked(messages, wish, self._draw_key(), timeout)
        reply = await self._line.ask(
            lambda to: to.inference.Generate,
            begin,
            timeout=timeout,
            resume=resume,
            drawn=not wish.get("idempotency_key"),
        )
        return turns.answer(reply)

    async def start(self, messages: Messages, *, timeout: float | None = None, **wish: Unpack[Wish]) -> Turn:
        """Starts a turn that goes on without a reader. `turn` tells how far it is, `resume` reads it."""
        begin = asked(messages, wish, self._draw_key(), timeout)
        ask = self._line.ask(lambda to: to.inference.StartTurn, begin, timeout=self._line.seconds)
        return turns.turn(await ask)

    async def turn(self, id: str) -> Turn:
        """A turn as far as it is. NOT_FOUND once its retention is over."""
        get = pb.GetTurnRequest(turn=id)
        ask = self._line.ask(lambda to: to.inference.GetTurn, get, timeout=self._line.seconds)
        return turns.turn(await ask)

    async def cancel(self, id: str) -> Turn:
        """Ends a turn, if it still runs."""
        end = pb.CancelTurnRequest(turn=id)
        ask = self._line.ask(lambda to: to.inference.CancelTurn, end, timeout=self._line.seconds)
        return turns.turn(await ask)

    def resume(self, id: str, *, after_seq: int = 0, epoch: int = 0, timeout: float | None = None) -> Stream:
        """The events of a turn after a position that was read; from its beginning without one.

        Leaving this stream does not end the turn.
        """
        begin = pb.ResumeTurnRequest(turn=id, after_seq=after_seq, epoch=epoch)
        return Stream(self._line, begin, timeout=timeout, resume=True)

    async def count_tokens(self, messages: Messages, **wish: Unpack[Wish]) -> int:
        """Tokens of the prompt that these messages make, with the tools and format of the wish."""
        asked = request(messages, wish)
        count = pb.CountTokensRequest(
            model=asked.model,
            messages=asked.messages,
            session=asked.session,
            tools=asked.tools,
            tool_choice=asked.tool_choice,
            response_format=asked.response_format,
            reasoning=asked.reasoning,
        )
        async with translated():
            reply = await self._line.endpoints.current.inference.CountTokens(count, **self._short)
        return int(reply.prompt_tokens)

    async def models(self) -> tuple[Model, ...]:
        stub = self._line.endpoints.current.models
        async with translated():
            reply = await stub.ListModels(models_pb2.ListModelsRequest(), **self._short)
        return tuple(_model(each) for each in reply.models)

    async def model(self, name: str) -> Model:
        stub = self._line.endpoints.current.models
        async with translated():
            return _model(await stub.GetModel(models_pb2.GetModelRequest(name=name), **self._short))


def _model(wire: models_pb2.Model) -> Model:
    replicas = tuple(
        Replica(
            name=each.name,
            engine=each.engine,
            connected=each.connected,
            draining=each.draining,
            running=each.running,
            waiting=each.waiting,
            capacity=each.capacity,
            kv_use=each.kv_use,
        )
        for each in wire.replicas
    )
    can = wire.abilities
    about = (wire.name, wire.revision, wire.context_length, replicas, can.tools, can.reasoning, can.effort)
    changes = tuple(
        ScalingChange(each.before, each.after, each.reason, each.at_ms / 1000) for each in wire.changes
    )
    return Model(*about, scaling=_scaling(wire), changes=changes)


def _scaling(wire: models_pb2.Model) -> Scaling | None:
    if not wire.HasField("scaling"):
        return None
    told = wire.scaling
    wanted = dict(told.wanted)
    return Scaling(told.desired, told.current, told.reason, told.held_because, told.age_ms / 1000, wanted)
