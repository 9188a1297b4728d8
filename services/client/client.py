"""The client: one channel to an endpoint, with one API key."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc, models_pb2, models_pb2_grpc, sessions_pb2_grpc
from services.client import events
from services.client.errors import translated
from services.client.messages import Message, Messages, Wish, from_wire, request
from services.client.sessions import Sessions
from services.client.stream import Stream

LOOPBACKS = ("localhost", "127.0.0.1", "[::1]")
OPTIONS = (("grpc.keepalive_time_ms", 60_000), ("grpc.max_receive_message_length", 64 << 20))


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. Without `root` the system's certificates are trusted; a pair is for mTLS."""

    root: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the other answers, with n > 1."""

    message: Message
    reason: events.FinishReason
    stop_sequence: str = ""
    logprobs: tuple[events.Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    turn: str
    model: str
    message: Message
    reason: events.FinishReason
    usage: events.Usage
    session_version: int
    stop_sequence: str = ""
    logprobs: tuple[events.Logprob, ...] = ()
    more: tuple[Choice, ...] = ()


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
class Model:
    name: str
    revision: str
    context_length: int
    replicas: tuple[Replica, ...]
    tools: bool = False
    reasoning: bool = False
    effort: bool = False


class Client:
    """Talks to a Headrace endpoint.

    async with Client("127.0.0.1:50051", key) as client:
        async for event in client.stream("What is the capital of France?"):
            ...

    Every method raises HeadraceError. `timeout` is in seconds, for each call; a stream has none by default.
    """

    def __init__(self, endpoint: str, api_key: str, *, tls: Tls | None = None, timeout: float = 30.0) -> None:
        self._channel = _channel(endpoint, tls)
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._short = {"metadata": self._metadata, "timeout": timeout}
        # Stubs are typed for sync channels; these are used with an aio one.
        self._inference: Any = inference_pb2_grpc.InferenceStub(self._channel)
        self._models: Any = models_pb2_grpc.ModelsStub(self._channel)
        self.sessions = Sessions(sessions_pb2_grpc.SessionsStub(self._channel), self._short)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    def stream(self, messages: Messages, *, timeout: float | None = None, **wish: Unpack[Wish]) -> Stream:
        """Runs a turn and yields its events as they come."""
        call = {"metadata": self._metadata, "timeout": timeout}
        return Stream(self._inference.StreamGenerate(request(messages, wish), **call))

    async def generate(
        self, messages: Messages, *, timeout: float | None = None, **wish: Unpack[Wish]
    ) -> Answer:
        """Runs a turn to its end."""
        call = {"metadata": self._metadata, "timeout": timeout}
        async with translated():
            reply = await self._inference.Generate(request(messages, wish), **call)
        return _answer(reply)

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
            reply = await self._inference.CountTokens(count, **self._short)
        return int(reply.prompt_tokens)

    async def models(self) -> tuple[Model, ...]:
        async with translated():
            reply = await self._models.ListModels(models_pb2.ListModelsRequest(), **self._short)
        return tuple(_model(each) for each in reply.models)

    async def model(self, name: str) -> Model:
        async with translated():
            return _model(await self._models.GetModel(models_pb2.GetModelRequest(name=name), **self._short))


def _answer(reply: pb.GenerateResponse) -> Answer:
    return Answer(
        turn=reply.turn,
        model=reply.model,
        message=from_wire(reply.message),
        reason=events.REASONS[reply.finish_reason],
        usage=events.usage(reply.usage),
        session_version=reply.session_version,
        stop_sequence=reply.stop_sequence,
        logprobs=events.logprobs(reply.logprobs),
        more=tuple(
            Choice(
                from_wire(each.message),
                events.REASONS[each.finish_reason],
                each.stop_sequence,
                events.logprobs(each.logprobs),
            )
            for each in reply.more
        ),
    )


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
    return Model(
        wire.name, wire.revision, wire.context_length, replicas, can.tools, can.reasoning, can.effort
    )


def _channel(endpoint: str, tls: Tls | None) -> grpc.aio.Channel:
    # A proxy in the environment is not for this machine itself.
    own = endpoint.rpartition(":")[0] in LOOPBACKS
    options = (*OPTIONS, ("grpc.enable_http_proxy", int(not own)))
    if tls is None:
        return grpc.aio.insecure_channel(endpoint, options)
    credentials = grpc.ssl_channel_credentials(_read(tls.root), _read(tls.key), _read(tls.certificate))
    return grpc.aio.secure_channel(endpoint, credentials, options)


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
