"""Routes engine steps to the connections whose turns advanced.

One task reads the engine. A turn is one row in a table: no task, queue or lock belongs to it.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import count, islice, repeat
from typing import Protocol

from cluster.engine.port import (
    Cause,
    Engine,
    EngineDead,
    EngineError,
    EngineRequest,
    Finished,
    First,
    Load,
    Logprobs,
    RequestRejected,
    StepOutput,
)

log = logging.getLogger(__name__)


# A board id is the connection's number above the id that its gateway chose.
ID_BITS = 64
ID_MASK = 2**ID_BITS - 1


class Sink(Protocol):
    """Where the output of a turn goes, under the id its owner chose."""

    def token(self, id: int, token: int) -> None: ...

    def scored(self, id: int, tokens: Sequence[int], logprobs: Logprobs) -> None:
        """Tokens of a turn that asked for log probabilities, with them."""

    def first(self, id: int, first: First) -> None: ...

    def finish(self, id: int, end: Finished) -> None: ...


class Probe:
    """Sink of the canary's turn: the future ends with it, in EngineDead when the turn failed."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def token(self, id: int, token: int) -> None:
        """The token proves nothing that the ending does not."""

    def scored(self, id: int, tokens: Sequence[int], logprobs: Logprobs) -> None:
        """A canary asks for none."""

    def first(self, id: int, first: First) -> None:
        """Timing is read from the turns of gateways."""

    def finish(self, id: int, end: Finished) -> None:
        if self.done.done():
            return
        if end.cause in (Cause.STOP, Cause.LENGTH):
            self.done.set_result(None)
        else:
            self.done.set_exception(EngineDead(f"canary: {end.cause.name} {end.detail}".strip()))


class Switchboard:
    """Turns of all gateways on one engine: admission to `capacity`, routing, cancel, drain."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        self.engine = engine
        self.capacity = capacity
        self.draining = False
        self.tokens = 0  # sampled so far
        self.dead = asyncio.Event()
        self.death = ""
        self._sinks: dict[int, Sink] = {}
        self._connections = count(1)
        self._probe_ids = count(1)
        self._probing = 0
        self._starting: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pump: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read the engine; call once, on the event loop that serves the link."""
        self._pump = asyncio.create_task(self._run(), name="engine pump")

    async def stop(self) -> None:
        """End the turns still on the board as DRAINING and stop reading."""
        await self.end_all(Cause.DRAINING)
        if self._starting:
            await asyncio.wait(self._starting)
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])

    def connection(self) -> int:
        """A prefix for board ids that no connection had before; 0 is the canary's."""
        return next(self._connections) << ID_BITS

    def runs(self, id: int) -> bool:
        return id in self._sinks

    async def submit(self, sink: Sink, request: EngineRequest) -> None:
        """Start a turn, or put the reason against it into the sink."""
        if (cause := self._refusal()) is not None:
            sink.finish(request.id & ID_MASK, Finished(request.id, cause, detail=self.death))
            return
        self._place(sink, request.id)
        if request.structural_tag:
            # The engine checks it for a while; commands that follow on the link do not wait for that.
            starting = asyncio.create_task(self._start(request), name="start of a turn")
            self._starting.add(starting)
            starting.add_done_callback(partial(self._started, request.id))
        else:
            await self._start(request)

    async def cancel(self, ids: Iterable[int]) -> None:
        """Drop turns from the engine at once; each that still ran ends as CANCELLED."""
        await self._drop({id: sink for id in ids if (sink := self._forget(id)) is not None}, Cause.CANCELLED)

    async def cancel_all(self, sink: Sink) -> None:
        """Drop every turn that reports to `sink`."""
        await self.cancel([id for id, owner in self._sinks.items() if owner is sink])

    async def end_all(self, cause: Cause, detail: str = "") -> None:
        sinks, self._sinks = self._sinks, {}
        self._idle.set()
        await self._drop(sinks, cause, detail)

    async def probe(self) -> None:
        """Generate one token through the scheduler that serves everyone; raises EngineDead."""
        if self.dead.is_set():
            raise EngineDead(self.death)
        probe, id = Probe(), next(self._probe_ids)
        self._probing += 1
        try:
            self._place(probe, id)
            await self._start(EngineRequest(id=id, prompt=[1], max_tokens=1, temperature=0))
            await probe.done
        finally:
            self._probing -= 1
            await self.cancel([id])

    async def idle(self) -> None:
        """Wait until no turn is left."""
        await self._idle.wait()

    def load(self) -> Load:
        return self.engine.load()

    def _refusal(self) -> Cause | None:
        if self.dead.is_set():
            return Cause.ENGINE
        if self.draining:
            return Cause.DRAINING
        # A canary on the board must not cost a turn its place.
        return Cause.FULL if len(self._sinks) - self._probing >= self.capacity else None

    def _place(self, sink: Sink, id: int) -> None:
        """The sink stands before the engine knows the turn: a step may end while its submit awaits."""
        self._sinks[id] = sink
        self._idle.clear()

    async def _start(self, request: EngineRequest) -> None:
        if request.id not in self._sinks:
            # It was cancelled before it began.
            return
        try:
            await self.engine.submit(request)
        except EngineError as error:
            cause = Cause.REJECTED if isinstance(error, RequestRejected) else Cause.ENGINE
            self._end(request.id, cause, str(error))

    def _started(self, id: int, starting: asyncio.Task[None]) -> None:
        self._starting.discard(starting)
        if not starting.cancelled() and (error := starting.exception()) is not None:
            log.error("the start of a turn failed", exc_info=error)
            self._end(id, Cause.ENGINE, f"the start of the turn failed: {type(error).__name__}")

    def _end(self, id: int, cause: Cause, detail: str) -> None:
        if (sink := self._forget(id)) is not None:
            sink.finish(id & ID_MASK, Finished(id, cause, detail=detail))

    async def _drop(self, sinks: dict[int, Sink], cause: Cause, detail: str = "") -> None:
        for id, sink in sinks.items():
            sink.finish(id & ID_MASK, Finished(id, cause, detail=detail))
        if sinks and not self.dead.is_set():
            await self.engine.cancel(list(sinks))

    def _forget(self, id: int) -> Sink | None:
        sink = self._sinks.pop(id, None)
        if not self._sinks:
            self._idle.set()
        return sink

    async def _run(self) -> None:
        """Read the engine until it dies. The one place that outlives any exception: whatever broke
        the reading, the turns on the board have to be told."""
        try:
            while True:
                self._deliver(await self.engine.step())
        except EngineDead as death:
            self.death = str(death)
        except Exception as error:
            log.exception("reading the engine failed")
            self.death = f"reading the engine failed: {type(error).__name__}"
        self.dead.set()
        await self.end_all(Cause.ENGINE, self.death)

    def _deliver(self, step: StepOutput) -> None:
        sinks = self._sinks
        self.tokens += len(step.tokens)
        for first in step.firsts:
            if (sink := sinks.get(first.id)) is not None:
                sink.first(first.id & ID_MASK, first)
        if step.counts or step.logprobs:
            self._deliver_runs(step)
        else:
            for id, token in zip(step.ids, step.tokens, strict=True):
                if (sink := sinks.get(id)) is not None:
                    sink.token(id & ID_MASK, token)
        for end in step.finishes:
            if (sink := self._forget(end.id)) is not None:
                sink.finish(end.id & ID_MASK, end)

    def _deliver_runs(self, step: StepOutput) -> None:
        tokens = iter(step.tokens)
        scores = {scored.id: scored for scored in step.logprobs}
        for id, length in zip(step.ids, step.counts or repeat(1, len(step.ids)), strict=True):
            run = tuple(islice(tokens, length))
            if (sink := self._sinks.get(id)) is None:
                continue
            if (logprobs := scores.get(id)) is not None:
                sink.scored(id & ID_MASK, run, logprobs)
                continue
            for token in run:
                sink.token(id & ID_MASK, token)
