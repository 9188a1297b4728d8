"""A client of one turn: streams, leaves, resumes anywhere, retries with its key, cancels; and what it saw."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from tests.sim.gateway import Call, End, SimGateway
from tests.sim.loop import VirtualLoop

LATE = 1.0  # seconds after its deadline within which a turn's ending has to be there
RETRIABLE = {
    "TRANSPORT",
    "NO_REPLICA",
    "ENGINE_LOST",
    "STORE_AWAY",
    "DRAINING",
    "REFUSED_FULL",
    "OUT_OF_RANGE",
}
SILENCE = 2.5  # seconds without an event after which an impatient client tries elsewhere


@dataclass(frozen=True, slots=True)
class Plan:
    tenant: str
    text: str
    max_tokens: int
    timeout: int  # seconds
    method: str = "StreamGenerate"
    key: str = ""
    session: str = ""
    queue: bool = False  # wait for other turns of the session
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int = 0
    linger: int | None = None
    durable: bool = False
    leave_after: int | None = None  # events
    away: float = 0.0  # seconds until it comes back
    cancel_after: float | None = None  # seconds
    slow: float = 0.0  # seconds that it takes to read an event
    impatient: bool = False

    @property
    def request(self) -> pb.GenerateRequest:
        request = pb.GenerateRequest(
            messages=[pb.Message(role=pb.ROLE_USER, content=[pb.Part(text=self.text)])],
            max_tokens=self.max_tokens,
            timeout_seconds=self.timeout,
            idempotency_key=self.key,
            session=self.session,
            session_busy=pb.SESSION_BUSY_QUEUE if self.queue else pb.SESSION_BUSY_ABORT,
            stop=self.stop,
            n=self.n,
            linger_seconds=self.linger,
            durable=self.durable,
        )
        request.sampling.seed = self.seed
        return request


@dataclass(frozen=True, slots=True)
class Seen:
    at: float
    epoch: int
    seq: int
    kind: str
    choice: int = 0
    text: str = ""
    tokens: int = 0
    outcome: str = ""


@dataclass(slots=True)
class History:
    plan: Plan
    began: float
    deadline: float = 0.0
    turn: str = ""
    resumable: bool = True
    events: list[Seen] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rewinds: int = 0
    parts: list[str] = field(default_factory=list)  # what broke a promise while it was read
    finished: Any = None  # the Finished, or a Turn or a reply that says as much
    ended: str = ""  # "finished", or the outcome of a terminal error
    ended_at: float = 0.0
    refused: str = ""  # how the last call ended, if the client gave up
    details: str = ""

    @property
    def position(self) -> tuple[int, int]:
        return (self.events[-1].epoch, self.events[-1].seq) if self.events else (0, 0)


class Caller:
    def __init__(
        self,
        plan: Plan,
        loop: VirtualLoop,
        gateways: Callable[[], Sequence[SimGateway]],
        rng: random.Random,
        healed: float,
        note: Callable[[str], None],
    ) -> None:
        self._loop, self._gateways, self._rng, self._note = loop, gateways, rng, note
        self._healed = healed
        self.history = History(plan, loop.time(), loop.time() + plan.timeout, texts=[""] * plan.n)

    async def run(self) -> None:
        plan, history = self.history.plan, self.history
        until = max(history.deadline, self._healed) + LATE
        if plan.cancel_after is not None:
            self._loop.create_task(self._cancel_later(plan.cancel_after))
        method, request = plan.method, plan.request
        while self._loop.time() < until:
            end = await self._one(method, request, until)
            if history.ended or not self._again(end):
                break
            if history.turn:
                epoch, seq = history.position
                method = "ResumeTurn"
                request = pb.ResumeTurnRequest(turn=history.turn, after_seq=seq, epoch=epoch)
            await asyncio.sleep(self._rng.uniform(0.02, 0.4))
        if not history.ended and not history.refused:
            history.refused = "TIME"

    def _again(self, end: End | None) -> bool:
        """Whether another try is of use, and does nothing twice."""
        history = self.history
        if end is None:  # it left
            end = End("TRANSPORT")
        if isinstance(end.reply, pb.Turn):
            return True
        history.refused, history.details = end.status, end.details
        again = end.status in RETRIABLE and (
            end.status != "TRANSPORT" or bool(history.turn or history.plan.key)
        )
        if again:
            history.refused = ""
        return again

    async def _one(self, method: str, request: Any, until: float) -> End | None:
        """One call: how it ended, or None if the client left it."""
        gateways = self._gateways()
        gateway = self._rng.choice(gateways) if gateways else None
        if gateway is None:
            return End("TRANSPORT")
        plan = self.history.plan
        self._note(f"{plan.text}: {method} at {gateway.name} after {self.history.position}")
        call = gateway.open(method, request, plan.tenant, until, plan.slow)
        end = await self._read(call, until)
        told = "left" if end is None else f"{end.status or 'OK'} {end.details}"
        self._note(f"{plan.text}: {method} {told} at {self.history.position} {self.history.ended}")
        return end

    async def _read(self, call: Call, until: float) -> End | None:
        plan, history = self.history.plan, self.history
        while True:
            patience = min(until, self._loop.time() + SILENCE) if plan.impatient else until
            what = await call.take(patience)
            if what is None:
                call.cancel()
                return None
            if isinstance(what, End):
                self._reply(what)
                return what
            self._see(what)
            if plan.leave_after is not None and len(history.events) == plan.leave_after and history.turn:
                call.cancel()
                self._note(f"{plan.text}: leaves at {history.position} for {plan.away:.1f} s")
                await asyncio.sleep(plan.away)
                return None

    def _reply(self, end: End) -> None:
        history, reply = self.history, end.reply
        if isinstance(reply, pb.Turn):
            history.turn = reply.id
        elif isinstance(reply, pb.GenerateResponse):
            history.turn = reply.turn
            said = [reply.message, *(choice.message for choice in reply.more)]
            history.texts = [_text(message) for message in said]
            self._end("finished", reply)
        elif history.turn and not history.ended and end.status in ("CANCELLED", "DEADLINE") and end.details:
            self._end(end.status.lower(), None)  # of a turn that had not started
        elif not end.status and not history.ended:
            history.parts.append("a stream ended without a terminal event")

    def _see(self, event: pb.StreamEvent) -> None:
        history, kind = self.history, event.WhichOneof("event")
        seen = Seen(self._loop.time(), event.epoch, event.seq, kind, event.choice)
        self._ordered(seen)
        history.events.append(seen)
        if kind == "started":
            history.turn, history.resumable = event.started.turn, event.started.resumable
        elif kind == "delta":
            history.texts[event.choice] += event.delta.text
        elif kind == "rewind":
            history.rewinds += 1
            said = [_text(message) for message in event.rewind.answers]
            history.texts = said + [""] * (history.plan.n - len(said))
        elif kind == "finished":
            self._end("finished", event.finished)
        elif kind == "error":
            self._end(event.error.outcome.lower(), None)

    def _end(self, how: str, finished: Any) -> None:
        history = self.history
        history.ended, history.finished, history.ended_at = how, finished, self._loop.time()

    def _ordered(self, seen: Seen) -> None:
        history = self.history
        (epoch, seq), last = history.position, history.events[-1] if history.events else None
        if history.ended:
            history.parts.append(f"{seen.kind} after the terminal event")
        if last is None:
            return
        # What is beyond a rewind may be told to nobody, and a store that failed over may have forgotten a takeover.
        right = seen.seq <= seq if seen.kind == "rewind" else (seen.epoch >= epoch and seen.seq > seq)
        if not right:
            history.parts.append(f"{seen.kind} {(seen.epoch, seen.seq)} after {(epoch, seq)}")

    async def _cancel_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        history, plan = self.history, self.history.plan
        while (
            history.turn and not (history.ended or history.refused) and self._loop.time() < history.deadline
        ):
            if not (gateways := self._gateways()):
                await asyncio.sleep(0.2)
                continue
            gateway = self._rng.choice(gateways)
            request = pb.CancelTurnRequest(turn=history.turn)
            call = gateway.open("CancelTurn", request, plan.tenant, self._loop.time() + 1)
            end = await call.take(self._loop.time() + 1)
            self._note(f"{plan.text}: cancel at {gateway.name} {end and (end.status or 'OK')}")
            if isinstance(end, End) and end.status in ("", "NOT_FOUND"):
                return
            await asyncio.sleep(0.2)


def _text(message: pb.Message) -> str:
    return "".join(part.text for part in message.content)
