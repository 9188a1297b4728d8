"""The gateway's end of the engine link: one stream to one replica, all turns on it."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from enum import StrEnum
from typing import Any

import grpc

from cluster.link.v1 import link_pb2 as pb
from cluster.link.v1 import link_pb2_grpc
from services.backend.port import Cause, Lease, Load, Order, Sink

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # 60 s by itself, whatever the line above says
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment is not for replicas
)

CAUSES = {
    pb.FINISH_CAUSE_STOP: Cause.STOP,
    pb.FINISH_CAUSE_LENGTH: Cause.LENGTH,
    pb.FINISH_CAUSE_CANCELLED: Cause.CANCELLED,
    pb.FINISH_CAUSE_REJECTED: Cause.REJECTED,
    pb.FINISH_CAUSE_ENGINE: Cause.ENGINE,
    pb.FINISH_CAUSE_FULL: Cause.FULL,
    pb.FINISH_CAUSE_DRAINING: Cause.DRAINING,
}


STALE = 3.0  # seconds; pings go out every half second
PACE_WEIGHT = 0.05  # of the newest step in the mean


class LinkState(StrEnum):
    CONNECTING = "connecting"
    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


class Link:
    """Submits orders and tells their sinks what the engine's steps bring.

    `serve()` holds the stream until it breaks; then every open order ends with Cause.LOST. It can be
    called again to reconnect. All other methods are synchronous and belong to the event loop's thread.
    """

    def __init__(
        self, lease: Lease, gateway: str, token: str, on_state: Callable[[LinkState, str], None]
    ) -> None:
        self.lease = lease
        self.load = Load(capacity=lease.capacity)
        self.state = LinkState.CONNECTING
        self.context_length = lease.context_length
        self.engine = lease.engine
        self.was_up = False  # since the last call of serve()
        self._hello = pb.Hello(gateway=gateway, token=token)
        self._on_state = on_state
        self.tried = asyncio.Event()  # set once the first attempt to connect came to an end
        self.up_at = self.heard_at = float("-inf")  # times of the event loop's clock
        self.asked_at = float("inf")  # when the oldest ping went out that nothing was heard since
        self.round_trip = 0.0  # seconds from the last ping to its answer; 0 while unknown
        self._asked = (0, 0.0)  # the last ping's nonce, and when it went out
        self.pace = 0.0  # seconds between two steps that brought tokens, lately; 0 while unknown
        self._stepped: float | None = None  # the last of them, while orders are open
        self._sinks: dict[int, Sink] = {}
        self._unfilled: dict[int, int] = {}  # prompt tokens of orders that have not begun
        self._last_id = 0
        self._commands: asyncio.Queue[pb.Command] = asyncio.Queue()
        self._call: Any = None
        self.connections = 0  # made so far; another one is another chance

    @property
    def name(self) -> str:
        return self.lease.replica

    @property
    def ready(self) -> bool:
        """Takes turns: connected, not draining, and heard of within STALE seconds."""
        return self.state is LinkState.UP and not self._silent

    @property
    def _silent(self) -> bool:
        return asyncio.get_running_loop().time() - self.heard_at >= STALE

    def drop_if_silent(self) -> None:
        """Ends the stream to a replica that has stopped talking, so that its orders can go on elsewhere."""
        if self.state in (LinkState.UP, LinkState.DRAINING) and self._silent and self._call is not None:
            self._call.cancel()

    @property
    def turns(self) -> int:
        """Orders on the replica: its own word, or ours where that has not caught up."""
        return max(self.load.running + self.load.waiting, len(self._sinks))

    @property
    def capacity(self) -> int:
        return self.load.capacity

    @property
    def kv_use(self) -> float:
        return self.load.kv_use

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens not yet prefilled: its own word, or ours where that has not caught up."""
        return max(self.load.queued_tokens, sum(self._unfilled.values()))

    def submit(self, order: Order, sink: Sink) -> int:
        """Sends the order and returns its id for `cancel`."""
        self._last_id += 1
        command = pb.Command(submit=_submit(self._last_id, order))
        self._sinks[self._last_id] = sink
        self._unfilled[self._last_id] = len(order.prompt)
        self._commands.put_nowait(command)
        return self._last_id

    def cancel(self, order_id: int) -> None:
        """Drops the order; its sink hears nothing more. Unknown ids are ignored."""
        if self._sinks.pop(order_id, None) is not None:
            self._unfilled.pop(order_id, None)
            self._commands.put_nowait(pb.Command(cancel=pb.Cancel(ids=[order_id])))

    def ping(self) -> None:
        """Asks a connected replica for a sign of life; idle ones send none by themselves."""
        if self.state in (LinkState.UP, LinkState.DRAINING):
            now = asyncio.get_running_loop().time()
            self._asked = (self._asked[0] + 1, now)
            self._commands.put_nowait(pb.Command(ping=pb.Ping(nonce=self._asked[0])))
            self.asked_at = min(self.asked_at, now)

    async def serve(self) -> str:
        """Connects, runs until the stream ends, and returns why it ended."""
        self._commands = asyncio.Queue()
        self.was_up = False
        self._set(LinkState.CONNECTING)
        async with grpc.aio.insecure_channel(self.lease.address, options=CHANNEL_OPTIONS) as channel:
            self._call = call = link_pb2_grpc.EngineLinkStub(channel).Connect(self._outgoing())
            reason = "given up"
            try:
                reason = await self._listen(call)
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
            except ValueError:
                reason = "a frame does not add up"
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                reason = f"silent for {STALE:g} s"  # only the call was cancelled
            finally:
                call.cancel()
                self._lose(reason)
            return reason

    async def _listen(self, call: AsyncIterable[pb.Frame]) -> str:
        async for frame in call:
            if (stranger := self._stranger(frame)) is not None:
                return stranger
            self._receive(frame)
        return "the replica closed the link"

    async def _outgoing(self) -> AsyncIterator[pb.Command]:
        yield pb.Command(hello=self._hello)
        commands = self._commands
        while True:
            yield await commands.get()

    def _stranger(self, frame: pb.Frame) -> str | None:
        """Says so if another replica answers where the lease's one was: ports are used again."""
        greeting, lease = frame.welcome, self.lease
        if not frame.HasField("welcome") or (greeting.replica, greeting.model) == (
            lease.replica,
            lease.model,
        ):
            return None
        return f"another replica answers at {lease.address}: {greeting.replica[:100]!r}"

    def _receive(self, frame: pb.Frame) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "step":
            self._step(frame.step)
        elif kind == "welcome":
            self._welcome(frame.welcome)
        elif kind == "draining":
            self._set(LinkState.DRAINING)
        elif kind == "pong":
            self._loaded(frame.pong.load)
            if frame.pong.nonce == self._asked[0]:
                self.round_trip = self.heard_at - self._asked[1]

    def _welcome(self, welcome: pb.Welcome) -> None:
        self.context_length = welcome.context_length
        self.engine = welcome.engine
        self._loaded(welcome.load)
        self.was_up = True
        self.connections += 1
        self.up_at, self.pace = self.heard_at, 0.0
        self._set(LinkState.UP)

    def _step(self, step: pb.Step) -> None:
        sinks = self._sinks
        for first in step.firsts:
            self._unfilled.pop(first.id, None)
            if (sink := sinks.get(first.id)) is not None:
                sink.prefilled(first.cached_tokens, first.queued_us / 1e6)
        for scores in step.logprobs:
            if (sink := sinks.get(scores.id)) is not None:
                sink.logprobs(scores.sampled, scores.top_ids, scores.top)
        if not step.counts:
            for order_id, token in zip(step.ids, step.tokens, strict=True):
                if (sink := sinks.get(order_id)) is not None:
                    sink.tokens((token,))
        else:
            self._spread(step)
        for finish in step.finishes:
            self._finish(finish)
        self._loaded(step.load)
        if step.ids:
            self._paced()

    def _finish(self, finish: pb.Finish) -> None:
        self._unfilled.pop(finish.id, None)
        if (sink := self._sinks.pop(finish.id, None)) is not None:
            sink.ended(CAUSES.get(finish.cause, Cause.ENGINE), finish.detail, finish.stop_id)

    def _paced(self) -> None:
        """Idle time between two turns is no pace."""
        if self._stepped is not None:
            gap = self.heard_at - self._stepped
            self.pace = gap if self.pace == 0 else self.pace + PACE_WEIGHT * (gap - self.pace)
        self._stepped = self.heard_at if self._sinks else None

    def _spread(self, step: pb.Step) -> None:
        at = 0
        for order_id, count in zip(step.ids, step.counts, strict=True):
            if (sink := self._sinks.get(order_id)) is not None:
                sink.tokens(step.tokens[at : at + count])
            at += count

    def _loaded(self, load: pb.Load) -> None:
        self.heard_at, self.asked_at = asyncio.get_running_loop().time(), float("inf")
        self.load = Load(load.running, load.waiting, load.kv_use, load.queued_tokens, load.capacity)

    def _lose(self, reason: str) -> None:
        self._set(LinkState.DOWN, reason)
        lost, self._sinks, self._unfilled, self._stepped = self._sinks, {}, {}, None
        for sink in lost.values():
            sink.ended(Cause.LOST, "the link to the replica broke", 0)

    def _set(self, state: LinkState, reason: str = "") -> None:
        if state is not LinkState.CONNECTING:
            self.tried.set()
        if state is not self.state:
            self.state = state
            self._on_state(state, reason)


def _submit(order_id: int, order: Order) -> pb.Submit:
    drawn = order.sampling
    sampling = pb.Sampling(
        temperature=drawn.temperature,
        top_p=drawn.top_p,
        top_k=drawn.top_k,
        min_p=drawn.min_p,
        presence_penalty=drawn.presence_penalty,
        frequency_penalty=drawn.frequency_penalty,
        repetition_penalty=drawn.repetition_penalty,
        seed=drawn.seed,
    )
    return pb.Submit(
        id=order_id,
        prompt=order.prompt,
        max_tokens=order.max_tokens,
        min_tokens=order.min_tokens,
        stop_ids=order.stop_ids,
        sampling=sampling,
        cache_salt=order.cache_salt,
        turn=order.turn,
        structural_tag=order.structural_tag,
        logprobs=order.logprobs,
        continued=order.continued,
        traceparent=order.traceparent,
    )
