"""The client: one channel to an endpoint, with one API key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import inference_pb2_grpc, models_pb2, models_pb2_grpc, sessions_pb2_grpc
from services.client import events
from services.client.errors import translated
from services.client.messages import Message, Messages, Sampling, from_wire, sampling_to_wire, to_wire
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
class Answer:
    turn: str
    model: str
    message: Message
    reason: events.FinishReason
    usage: events.Usage
    session_version: int


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

    def stream(
        self,
        messages: Messages,
        *,
        model: str = "",
        session: str = "",
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: int | None = None,
        stop: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Stream:
        """Runs a turn and yields its events as they come."""
        request = _request(messages, model, session, sampling, max_tokens, min_tokens, stop)
        return Stream(self._inference.StreamGenerate(request, metadata=self._metadata, timeout=timeout))

    async def generate(
        self,
        messages: Messages,
        *,
        model: str = "",
        session: str = "",
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
        min_tokens: int | None = None,
        stop: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Answer:
        """Runs a turn to its end."""
        request = _request(messages, model, session, sampling, max_tokens, min_tokens, stop)
        async with translated():
            reply = await self._inference.Generate(request, metadata=self._metadata, timeout=timeout)
        return Answer(
            turn=reply.turn,
            model=reply.model,
            message=from_wire(reply.message),
            reason=events.REASONS[reply.finish_reason],
            usage=events.usage(reply.usage),
            session_version=reply.session_version,
        )

    async def count_tokens(self, messages: Messages, *, model: str = "", session: str = "") -> int:
        """Tokens of the prompt that these messages make."""
        request = pb.CountTokensRequest(model=model, messages=to_wire(messages), session=session)
        async with translated():
            reply = await self._inference.CountTokens(request, **self._short)
        return int(reply.prompt_tokens)

    async def models(self) -> tuple[Model, ...]:
        async with translated():
            reply = await self._models.ListModels(models_pb2.ListModelsRequest(), **self._short)
        return tuple(_model(each) for each in reply.models)

    async def model(self, name: str) -> Model:
        async with translated():
            return _model(await self._models.GetModel(models_pb2.GetModelRequest(name=name), **self._short))


def _request(
    messages: Messages,
    model: str,
    session: str,
    sampling: Sampling | None,
    max_tokens: int | None,
    min_tokens: int | None,
    stop: Sequence[str],
) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        messages=to_wire(messages),
        model=model,
        session=session,
        sampling=sampling_to_wire(sampling),
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=stop,
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
    return Model(wire.name, wire.revision, wire.context_length, replicas)


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
