"""The token path: what an engine step does to one turn. Runs once per turn and step, so it stays short."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from services.backend.port import Cause
from services.gateway.turn import Turn
from services.telemetry.metrics import TurnMeter
from services.text.detokenize import Detokenizer
from services.text.stop import StopScanner


class Ending(NamedTuple):
    cause: Cause
    detail: str = ""
    stop_sequence: str = ""


class Generation:
    """Hears one order as its Sink and appends whole characters to the turn's journal.

    `ending` resolves once: when the engine ends the order, or when a stop string matches.
    """

    __slots__ = ("_detokenizer", "_ids", "_last", "_meter", "_scanner", "_turn", "ending")

    def __init__(
        self, turn: Turn, detokenizer: Detokenizer, stops: tuple[str, ...], meter: TurnMeter
    ) -> None:
        self._turn = turn
        self._detokenizer = detokenizer
        self._scanner = StopScanner(stops) if stops else None
        self._meter = meter
        self._ids: list[int] = []
        self._last: float | None = None
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def prefilled(self, cached_tokens: int, queued: float) -> None:
        self._turn.cached_tokens = cached_tokens
        self._meter.cached.inc(cached_tokens)
        self._meter.queue.observe(queued)

    def logprobs(self, sampled: Sequence[float], top_ids: Sequence[int], top: Sequence[float]) -> None:
        """No order asks for them."""

    def tokens(self, ids: Sequence[int]) -> None:
        if self.ending.done():
            return
        self._observe(self._turn.clock.monotonic())
        self._turn.completion_tokens += len(ids)
        self._ids += ids
        self._deliver(self._detokenizer.push(ids))

    def ended(self, cause: Cause, detail: str, stop_id: int) -> None:
        if self.ending.done():
            return
        self._deliver(self._detokenizer.flush())
        if not self.ending.done() and self._scanner is not None:
            self._emit(self._scanner.flush())
        if not self.ending.done():
            self.ending.set_result(Ending(cause, detail))

    def _deliver(self, text: str) -> None:
        if self._scanner is None:
            self._emit(text)
            return
        passed, matched = self._scanner.push(text)
        self._emit(passed)
        if matched is not None:
            self.ending.set_result(Ending(Cause.STOP, stop_sequence=matched))

    def _emit(self, text: str) -> None:
        if text:
            self._turn.deliver(text, self._ids)
            self._ids = []

    def _observe(self, now: float) -> None:
        if self._last is None:
            self._meter.ttft.observe(now - self._turn.begun)
        else:
            self._meter.inter_token.observe(now - self._last)
        self._last = now
