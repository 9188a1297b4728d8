"""What waits to be written to one gateway.

The writer takes everything at once, so steps that end while a write is pending merge into the next
frame: the outbox holds at most the tokens of the turns in flight, however slow the reader. Log
probabilities are many values for each token, so a frame closes when it has MAX_LOGPROBS of them.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from cluster.engine.port import Finished, First, Logprobs
from cluster.link.v1 import link_pb2 as pb
from cluster.telemetry.spans import UNTRACED, Spans

# Endings that may wait before the reader of commands is held back. A sender that submits in a loop
# and reads nothing earns one refusal each time; turns in flight are bounded by the capacity.
MAX_FINISHES = 1024

# Values of 4 bytes, each with an id of at most 4, in a frame that a gateway takes up to 16 MiB.
MAX_LOGPROBS = 2**20


class Outbox:
    """Pending output of one connection. `load` is asked once for each frame that carries it."""

    def __init__(self, load: Callable[[], pb.Load], spans: Spans = UNTRACED) -> None:
        self._load = load
        self._spans = spans
        self._tokens: dict[int, list[int]] = {}
        self._finishes: list[pb.Finish] = []
        self._firsts: list[pb.First] = []
        self._logprobs: dict[int, pb.TokenLogprobs] = {}
        self._values = 0
        self._full: list[pb.Step] = []
        self._notices: dict[str, pb.Frame] = {}
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.closed = False

    def token(self, id: int, token: int) -> None:
        if (tokens := self._tokens.get(id)) is None:
            self._tokens[id] = [token]
        else:
            tokens.append(token)
        self._filled.set()

    def scored(self, id: int, tokens: Sequence[int], logprobs: Logprobs) -> None:
        if self._values >= MAX_LOGPROBS:
            self._full.append(self._step())
        self._tokens.setdefault(id, []).extend(tokens)
        scores = self._logprobs.setdefault(id, pb.TokenLogprobs(id=id))
        scores.sampled.extend(logprobs.sampled)
        scores.top_ids.extend(logprobs.top_ids)
        scores.top.extend(logprobs.top)
        self._values += len(logprobs.sampled) + len(logprobs.top)
        self._filled.set()

    def first(self, id: int, first: First) -> None:
        self._spans.first(id, first)
        self._firsts.append(pb.First(id=id, cached_tokens=first.cached_tokens, queued_us=first.queued_us))
        self._filled.set()

    def finish(self, id: int, end: Finished) -> None:
        self._spans.finish(id, end)
        cause = f"FINISH_CAUSE_{end.cause.name}"
        self._finishes.append(pb.Finish(id=id, cause=cause, stop_id=end.stop_id, detail=end.detail))
        if len(self._finishes) >= MAX_FINISHES:
            self._has_room.clear()
        self._filled.set()

    def pong(self, nonce: int) -> None:
        """Answer a ping; a pong not yet written is replaced, so a flood of pings costs one frame."""
        self._notices["pong"] = pb.Frame(pong=pb.Pong(nonce=nonce, load=self._load()))
        self._filled.set()

    def draining(self, grace_s: float) -> None:
        self._notices["draining"] = pb.Frame(draining=pb.Draining(grace_ms=int(grace_s * 1000)))
        self._filled.set()

    def close(self) -> None:
        """Nothing follows; the writer ends when what is pending has been taken."""
        self.closed = True
        self._filled.set()
        self._has_room.set()

    async def room(self) -> None:
        """Wait until another command may be read."""
        await self._has_room.wait()

    async def frames(self) -> list[pb.Frame]:
        """Wait for something to write and take all of it; empty when the outbox is closed."""
        await self._filled.wait()
        if not self.closed:
            self._filled.clear()
        return list(self._take())

    def _take(self) -> Iterator[pb.Frame]:
        full, self._full = self._full, []
        yield from (pb.Frame(step=step) for step in full)
        if self._tokens or self._finishes or self._firsts:
            yield pb.Frame(step=self._step())
        notices, self._notices = self._notices, {}
        yield from notices.values()

    def _step(self) -> pb.Step:
        if self._spans:
            self._spans.told(self._tokens)
        runs = self._tokens.values()
        tokens = list(chain.from_iterable(runs))
        step = pb.Step(
            ids=self._tokens.keys(),
            counts=[] if len(tokens) == len(self._tokens) else map(len, runs),
            tokens=tokens,
            finishes=self._finishes,
            firsts=self._firsts,
            load=self._load(),
            logprobs=self._logprobs.values(),
        )
        self._tokens, self._finishes, self._firsts = {}, [], []
        self._logprobs, self._values = {}, 0
        self._has_room.set()
        return step
