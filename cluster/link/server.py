"""grpc.aio server of the engine link: connections, their commands and their end."""

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from cluster.engine.port import Cause, Finished, RequestRejected
from cluster.link.inbound import MAX_STRUCTURAL_TAG, to_request
from cluster.link.outbox import Outbox
from cluster.link.switchboard import Switchboard
from cluster.link.v1 import link_pb2 as pb
from cluster.telemetry.spans import NO_TRACING, UNTRACED, Spans, Tracing

log = logging.getLogger(__name__)

SERVICE = "headrace.link.v1.EngineLink"
HELLO_TIMEOUT_S = 5.0
REMEMBERED_IDS = 65536

# Quoted: grpc has these type parameters in its stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[pb.Command, pb.Frame]"


class ProtocolError(Exception):
    """The gateway broke the link's rules in a way that only the end of the stream can answer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a replica says of itself in Welcome; `replica` is unique for each start."""

    replica: str
    model: str
    revision: str


class Connection:
    """One gateway's stream: what it may ask, and the outbox that its turns report to."""

    def __init__(self, board: Switchboard, spans: Spans = UNTRACED) -> None:
        self._board = board
        self._spans = spans
        self._prefix = board.connection()
        self._used: OrderedDict[int, None] = OrderedDict()
        self.outbox = Outbox(lambda: load_message(board), spans)

    async def obey(self, command: pb.Command) -> None:
        """Carry out one command. Raises ProtocolError."""
        match command.WhichOneof("command"):
            case "submit":
                await self._submit(command.submit)
            case "cancel":
                await self._board.cancel([self._prefix | id for id in command.cancel.ids])
            case "ping":
                self.outbox.pong(command.ping.nonce)
            case other:
                raise ProtocolError(f"unexpected command {other}")

    async def leave(self) -> None:
        """The stream is over, and its turns with it."""
        self.outbox.close()
        await self._board.cancel_all(self.outbox)
        self._spans.close()

    async def _submit(self, submit: pb.Submit) -> None:
        id = self._prefix | submit.id
        if self._board.runs(id):
            # A refusal under this id would read as the end of the turn that runs.
            raise ProtocolError(f"id {submit.id} is in use")
        try:
            self._use(submit.id)
            request = to_request(id, submit, self._board.engine.description)
        except RequestRejected as rejection:
            self.outbox.finish(submit.id, Finished(id, Cause.REJECTED, detail=str(rejection)))
        else:
            self._spans.begin(submit.id, submit.traceparent, submit.turn, len(submit.prompt))
            await self._board.submit(self.outbox, request)

    def _use(self, id: int) -> None:
        if id in self._used:
            raise RequestRejected("id was used before on this stream")
        self._used[id] = None
        if len(self._used) > REMEMBERED_IDS:
            self._used.popitem(last=False)


class LinkServer:
    """Serves EngineLink for one engine on one port."""

    def __init__(
        self, board: Switchboard, identity: Identity, token: str, tracing: Tracing = NO_TRACING
    ) -> None:
        self._tracing = tracing
        self._board = board
        self._identity = identity
        self._token = token.encode()
        self._outboxes: set[Outbox] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int = 0) -> str:
        """Listen and return "host:port"; port 0 takes a free one. Raises OSError when it is taken."""
        self._server = grpc.aio.server(options=options(self._board.engine.description.context_length))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        host = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}") from error
        await self._server.start()
        return f"{host}:{bound}"

    @property
    def connections(self) -> int:
        """Gateways that are connected."""
        return len(self._outboxes)

    async def drain(self, grace_s: float) -> None:
        """Refuse new turns, let running ones end within `grace_s` seconds, then end the rest."""
        self._board.draining = True
        for outbox in self._outboxes:
            outbox.draining(grace_s)
        try:
            async with asyncio.timeout(grace_s):
                await self._board.idle()
        except TimeoutError:
            await self._board.end_all(Cause.DRAINING)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Write out what is pending, for at most `grace_s` seconds, and close every stream."""
        for outbox in self._outboxes:
            outbox.close()
        if self._server is not None:
            await self._server.stop(grace_s)

    async def connect(self, commands: AsyncIterator[pb.Command], context: Context) -> None:
        """The life of one stream."""
        gateway = await self._greet(commands, context)
        connection = Connection(self._board, self._tracing.spans())
        outbox = connection.outbox
        self._outboxes.add(outbox)
        if self._board.draining:
            outbox.draining(0)
        reading = asyncio.create_task(read(connection, commands), name=f"commands of {gateway}")
        dying = asyncio.create_task(self._close_with_engine(outbox), name=f"engine of {gateway}")
        try:
            await write(outbox, context)
        finally:
            self._outboxes.discard(outbox)
            reading.cancel()
            dying.cancel()
            await connection.leave()
            log.info("gateway %s left", gateway)
        if self._board.dead.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._board.death)
        if (error := broken_rule(reading)) is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _greet(self, commands: AsyncIterator[pb.Command], context: Context) -> str:
        """Check the hello, answer with Welcome, and return the gateway's name for logs."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                command = await anext(commands, pb.Command())
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no hello")
        # The bytes are compared: compare_digest takes only ASCII in texts.
        if not hmac.compare_digest(command.hello.token.encode(), self._token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "hello with the cluster's token is required")
        if self._board.dead.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._board.death)
        await context.write(pb.Frame(welcome=self._welcome()))
        return printable(command.hello.gateway)

    def _welcome(self) -> pb.Welcome:
        engine = self._board.engine.description
        return pb.Welcome(
            replica=self._identity.replica,
            model=self._identity.model,
            revision=self._identity.revision,
            context_length=engine.context_length,
            engine=engine.name,
            load=load_message(self._board),
        )

    async def _close_with_engine(self, outbox: Outbox) -> None:
        await self._board.dead.wait()
        outbox.close()

    def _handlers(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_stream_rpc_method_handler(
            self.connect,
            request_deserializer=parse,
            response_serializer=pb.Frame.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Connect": handler})


async def read(connection: Connection, commands: AsyncIterator[pb.Command]) -> None:
    """Obey commands until the gateway closes its side or breaks a rule, then close the outbox."""
    try:
        async for command in commands:
            await connection.obey(command)
            await connection.outbox.room()
    finally:
        connection.outbox.close()


def parse(data: bytes) -> pb.Command:
    """Bytes that are no Command become the empty one, which breaks the rules like any other."""
    try:
        return pb.Command.FromString(data)
    except DecodeError:
        return pb.Command()


def broken_rule(reading: asyncio.Task[None]) -> ProtocolError | None:
    """The rule that ended the reading; any other failure of it is raised."""
    if not reading.done() or reading.cancelled() or (error := reading.exception()) is None:
        return None
    if isinstance(error, ProtocolError):
        return error
    raise error


async def write(outbox: Outbox, context: Context) -> None:
    while frames := await outbox.frames():
        for frame in frames:
            await context.write(frame)


def load_message(board: Switchboard) -> pb.Load:
    load = board.load()
    return pb.Load(
        running=load.running,
        waiting=load.waiting,
        kv_use=load.kv_use,
        queued_tokens=load.queued_tokens,
        capacity=board.capacity,
        steps=load.steps,
    )


def printable(name: str) -> str:
    return "".join(c for c in name[:64] if c.isprintable())


def options(context_length: int) -> list[tuple[str, int]]:
    """A prompt of the full context and a structural tag fit in a message; a silent peer is gone after 15 s."""
    return [
        ("grpc.max_receive_message_length", 64 * 1024 + MAX_STRUCTURAL_TAG + 5 * context_length),
        ("grpc.max_concurrent_streams", 16),
        ("grpc.max_metadata_size", 4096),
        ("grpc.absolute_max_metadata_size", 8192),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),  # 60 s by itself, whatever the line above says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]
