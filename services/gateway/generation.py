"""The token path: what an engine step does to one answer. Runs once per answer and step, so it stays short."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from services.backend.port import Cause
from services.core.events import CallDelta, Delta, Event, Logprob, ReasoningDelta
from services.gateway.turn import Turn
from services.telemetry.metrics import TurnMeter
from services.text.family import Kind, Parser, Piece
from services.text.stop import StopScanner


class Ending(NamedTuple):
    """`flaw` names what was wrong with the answer, if it could not be read to its end."""

    cause: Cause
    detail: str = ""
    stop_sequence: str = ""
    flaw: str = ""


class Generation:
    """Hears one answer as a Sink and appends what it says to the turn's journal.

    `ending` resolves once for each order: when the engine ends it, a stop string matches, or nothing more can
    come. An order that was lost leaves the reading where it is: `goes_on` before the next replica's order.
    """

    __slots__ = (
        "_append",
        "_calls",
        "_endless",
        "_ids",
        "_last",
        "_meter",
        "_scanner",
        "_scores",
        "_text_of",
        "_turn",
        "_unsaid",
        "choice",
        "ending",
        "on_first",
        "parser",
        "sampled",
        "thought",
        "visible",
    )

    def __init__(
        self,
        turn: Turn,
        choice: int,
        parser: Parser,
        stops: tuple[str, ...],
        meter: TurnMeter,
        text_of: Callable[[int], bytes],
        *,
        endless: bool = False,
    ) -> None:
        """`endless`: the answer runs to its last token, whether or not anything can come of it."""
        self._turn = turn
        self._append: Callable[[Event], object] = turn.append
        self.choice = choice
        self.parser = parser
        self._scanner = StopScanner(stops) if stops else None
        self._meter = meter
        self._text_of = text_of
        self.sampled: list[int] = []  # all of this answer's ids
        self._ids: list[int] = []  # those since the last event
        self._scores: list[Logprob] = []  # of the ids that the next `tokens` brings
        self._unsaid: list[Logprob] = []  # of content that was not delivered yet
        self._calls = 0
        self._endless = endless
        self._last: float | None = None
        self.on_first: Callable[[], None] | None = None  # called when a replica takes the next order up
        self.visible = False  # content or a call was appended
        self.thought = False
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def replay(self, ids: Sequence[int]) -> list[Event]:
        """Brings the reading to where another gateway's was after these ids. Returns what it said on the way."""
        said: list[Event] = []
        self._append = said.append
        self.sampled += ids
        self._deliver(self.parser.push(ids))
        count = self._turn.counts[self.choice]
        count.completion, count.reasoning = len(ids), self.parser.reasoning_tokens
        if self.parser.over and not self._endless and not self.ending.done():
            self._end(Cause.STOP, "", cut=False)
        self._append = self._turn.append
        return said

    def replay_end(self, cause: Cause) -> list[Event]:
        """What the answer said last if it ended after these ids."""
        said: list[Event] = []
        self._append = said.append
        self._end(cause, "", cut=cause is Cause.LENGTH)
        self._append = self._turn.append
        return said

    def goes_on(self) -> None:
        self.ending = asyncio.get_running_loop().create_future()

    def prefilled(self, cached_tokens: int, queued: float) -> None:
        if self.on_first is not None:
            self.on_first()
            self.on_first = None
        if not self.sampled:
            self._turn.cached_tokens = cached_tokens
        self._meter.cached.inc(cached_tokens)
        self._meter.queue.observe(queued)

    def logprobs(self, sampled: Sequence[float], top_ids: Sequence[int], top: Sequence[float]) -> None:
        """Their tokens' bytes are not known before `tokens`; until then an entry has none."""
        k = len(top) // len(sampled) if sampled else 0
        named = [(self._text_of(id), score) for id, score in zip(top_ids, top, strict=True)]
        self._scores += [
            Logprob(b"", score, tuple(named[i * k : (i + 1) * k])) for i, score in enumerate(sampled)
        ]

    def tokens(self, ids: Sequence[int]) -> None:
        if self.ending.done():
            return
        self._observe(self._turn.clock.monotonic())
        count = self._turn.counts[self.choice]
        count.completion += len(ids)
        self._ids += ids
        self.sampled += ids
        if self._scores:
            self._push_scored(ids)
        else:
            self._deliver(self.parser.push(ids))
        count.reasoning = self.parser.reasoning_tokens
        if self.parser.over and not self._endless and not self.ending.done():
            self._end(Cause.STOP, "", cut=False)

    def ended(self, cause: Cause, detail: str, stop_id: int) -> None:
        if self.ending.done():
            return
        if cause in (Cause.STOP, Cause.LENGTH):
            self._end(cause, detail, cut=cause is Cause.LENGTH)
        else:
            self.ending.set_result(Ending(cause, detail))

    def whole(self, max_tokens: int) -> Ending | None:
        """How an answer ended that goes on after its past; None if it has not."""
        if self.ending.done():
            return self.ending.result()
        return self.cut() if len(self.sampled) >= max_tokens else None

    def cut(self) -> Ending:
        """The ending of an answer that has all the tokens it may have."""
        self.goes_on()
        self._end(Cause.LENGTH, "", cut=True)
        return self.ending.result()

    def give_up(self) -> None:
        """No other replica goes on with it: what was held back is delivered."""
        self.goes_on()
        self._end(Cause.LOST, "", cut=True)

    def _end(self, cause: Cause, detail: str, *, cut: bool) -> None:
        rest = self.parser.finish(cut=cut)
        self._deliver(rest.pieces)
        if not self.ending.done() and self._scanner is not None:
            self._say(self._scanner.flush())
        if not self.ending.done():
            self.ending.set_result(Ending(cause, detail, flaw=rest.flaw))

    def _push_scored(self, ids: Sequence[int]) -> None:
        """One by one, so that each token's log probability is told with its text, and only if that is content."""
        scores, self._scores = self._scores, []
        for id, score in zip(ids, scores, strict=True):
            pieces = self.parser.push((id,))
            if self.parser.kind is Kind.CONTENT and (text := self._text_of(id)):
                self._unsaid.append(score._replace(token=text))
            self._deliver(pieces)

    def _deliver(self, pieces: list[Piece]) -> None:
        for kind, text in pieces:
            if self.ending.done():
                return
            if kind is Kind.CONTENT:
                self._content(text)
            elif kind is Kind.REASONING:
                self.thought = True
                self._append(ReasoningDelta(text, self._taken(), self.choice))
            else:
                self._call(kind, text)

    def _content(self, text: str) -> None:
        if self._scanner is None:
            self._say(text)
            return
        passed, matched = self._scanner.push(text)
        self._say(passed)
        if matched is not None:
            self.ending.set_result(Ending(Cause.STOP, stop_sequence=matched))

    def _say(self, text: str) -> None:
        if text:
            self.visible = True
            scores, self._unsaid = self._unsaid, []
            self._append(Delta(text, self._taken(), self.choice, scores))

    def _call(self, kind: Kind, text: str) -> None:
        self.visible = True
        if kind is Kind.CALL:
            self._calls += 1
        index = self._calls - 1
        if kind is Kind.CALL:
            # Told by the turn's id, so that whoever continues the turn gives the same one.
            id = f"call_{self._turn.id.rpartition('_')[2]}_{self.choice}_{index}"
            self._append(CallDelta(index, "", self._taken(), self.choice, id, text))
        else:
            self._append(CallDelta(index, text, self._taken(), self.choice))

    def _taken(self) -> list[int]:
        ids, self._ids = self._ids, []
        return ids

    @property
    def called(self) -> bool:
        return self._calls > 0

    def _observe(self, now: float) -> None:
        if self._last is None:
            self._meter.ttft.observe(now - self._turn.begun)
            self._turn.trace.event("first token", choice=self.choice)
        else:
            self._meter.inter_token.observe(now - self._last)
        self._last = now
