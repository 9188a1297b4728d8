"""A gateway's end of the engine link, for tests: real grpc.aio over loopback."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from cluster.engine.sim import SimEngine, SimSettings, SimTiming
from cluster.link.server import SERVICE, Identity, LinkServer
from cluster.link.switchboard import Switchboard
from cluster.link.v1 import link_pb2 as pb

TOKEN = "s3cret"
FAST = SimTiming(scale=0.0)


@dataclass
class Ledger:
    """What arrived on a link, folded by turn."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    finishes: dict[int, pb.Finish] = field(default_factory=dict)
    firsts: dict[int, pb.First] = field(default_factory=dict)
    logprobs: dict[int, pb.TokenLogprobs] = field(default_factory=dict)
    frames: list[pb.Frame] = field(default_factory=list)

    def add(self, frame: pb.Frame) -> None:
        self.frames.append(frame)
        step = frame.step
        tokens = iter(step.tokens)
        for id, run in zip(step.ids, step.counts or [1] * len(step.ids), strict=True):
            assert id not in self.finishes, "tokens after the end of a turn"
            self.tokens.setdefault(id, []).extend(next(tokens) for _ in range(run))
        assert next(tokens, None) is None
        assert len({scores.id for scores in step.logprobs}) == len(step.logprobs)
        for scores in step.logprobs:
            self.logprobs.setdefault(scores.id, pb.TokenLogprobs()).MergeFrom(scores)
            assert len(self.logprobs[scores.id].sampled) == len(self.tokens[scores.id])
        for first in step.firsts:
            assert first.id not in self.firsts
            self.firsts[first.id] = first
        for finish in step.finishes:
            assert finish.id not in self.finishes, "a second end of a turn"
            self.finishes[finish.id] = finish


class Gateway:
    """One stream; `ledger` grows only while a test reads."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        connect = self._channel.stream_stream(
            f"/{SERVICE}/Connect",
            request_serializer=pb.Command.SerializeToString,
            response_deserializer=pb.Frame.FromString,
        )
        self.call = connect()
        self.ledger = Ledger()

    async def hello(self, token: str = TOKEN) -> pb.Welcome:
        await self.call.write(pb.Command(hello=pb.Hello(gateway="test", token=token)))
        return (await self.frame()).welcome

    async def submit(self, id: int, prompt: list[int], max_tokens: int, **fields: object) -> None:
        submit = pb.Submit(id=id, prompt=prompt, max_tokens=max_tokens, **fields)  # type: ignore[arg-type]
        await self.call.write(pb.Command(submit=submit))

    async def cancel(self, *ids: int) -> None:
        await self.call.write(pb.Command(cancel=pb.Cancel(ids=ids)))

    async def ping(self, nonce: int) -> None:
        await self.call.write(pb.Command(ping=pb.Ping(nonce=nonce)))

    async def frame(self) -> pb.Frame:
        frame = await self.call.read()
        if frame is grpc.aio.EOF:
            raise EOFError
        self.ledger.add(frame)
        return frame

    async def until(self, done: Callable[[Ledger], bool]) -> Ledger:
        while not done(self.ledger):
            await self.frame()
        return self.ledger

    async def finished(self, *ids: int) -> Ledger:
        return await self.until(lambda ledger: ledger.finishes.keys() >= set(ids))

    async def close(self) -> None:
        self.call.cancel()
        await self._channel.close()


@dataclass
class Replica:
    engine: SimEngine
    board: Switchboard
    server: LinkServer
    address: str

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Gateway]:
        gateway = Gateway(self.address)
        try:
            await gateway.hello()
            yield gateway
        finally:
            await gateway.close()


@asynccontextmanager
async def running_replica(
    *, capacity: int = 64, timing: SimTiming = FAST, mean_length: int = 0, context_length: int = 100_000
) -> AsyncIterator[Replica]:
    engine = SimEngine(SimSettings(timing=timing, mean_length=mean_length, context_length=context_length))
    board = Switchboard(engine, capacity)
    server = LinkServer(board, Identity("replica-1", "sim-model", "r1"), TOKEN)
    board.start()
    try:
        yield Replica(engine, board, server, await server.start("127.0.0.1"))
    finally:
        await server.stop(0)
        await board.stop()
        await engine.close()
