"""What the autoscaler shares with the gateways through Redis: its decisions, and the turns that they hold.

A thread does the talking, so that whoever decides never waits: it reads what was heard last and leaves what is to be
told.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from typing import Any

from cluster.serving.lease import AWAY, open_redis
from cluster.serving.names import decision_key, held_key, log_key

log = logging.getLogger(__name__)

PERIOD_S = 0.5
SILENT_S = 3.0  # without an answer of Redis nothing is known of held turns
GATEWAY_S = 5.0  # a gateway that says nothing for so long holds nothing
UNHEARD_S = 60.0  # what was written so long ago is of no gateway that lives, whatever the clocks
FORGET_S = 600.0  # a field that has not changed for so long is removed
EXPIRE_S = 60  # of the decision
CHANGES = 100  # kept in the log


@dataclass(frozen=True, slots=True)
class Word:
    """Of one gateway: the turns that it holds or has refused lately."""

    at_ms: int  # by the gateway's clock, which may be wrong: what counts is that it changes
    turns: int
    since: float  # when it was seen to change last, or first at all, by this process's clock
    lives: bool  # it was seen to change, or is of now


class Ledger:
    """Of one model. Redis may be away for any time; changes that it missed are written when it is back."""

    def __init__(
        self,
        model: str,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._url = url
        self._clock, self._wall = clock, wall
        self._lock = Lock()
        self._stop = Event()
        self._words: dict[str, Word] = {}
        self._answered = float("-inf")
        self._decision: str | None = None
        self._changes = deque[str](maxlen=CHANGES)
        self._kept: dict[str, Any] | None = None
        self._away = False
        self.opened = Event()  # set once Redis has answered for the first time
        self._thread = Thread(target=self._talk, name=f"ledger of {model}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The thread ends within a period or two; nobody has to wait for it."""
        self._stop.set()

    def join(self) -> None:
        self._thread.join()

    @property
    def held(self) -> int | None:
        """Turns that gateways hold or have refused lately; None while Redis does not say."""
        with self._lock:
            now = self._clock()
            if now - self._answered > SILENT_S:
                return None
            words = self._words.values()
            return sum(word.turns for word in words if word.lives and now - word.since <= GATEWAY_S)

    def kept(self) -> dict[str, Any] | None:
        """The last decision that Redis had when it answered first: that of the autoscaler before this one."""
        with self._lock:
            return self._kept

    def tell(self, decision: Mapping[str, Any], change: Mapping[str, Any] | None) -> None:
        with self._lock:
            self._decision = json.dumps(decision)
            if change is not None:
                self._changes.append(json.dumps(change))

    def _talk(self) -> None:
        asyncio.run(self._converse())

    async def _converse(self) -> None:
        redis: Any = open_redis(self._url)
        try:
            while not self._stop.is_set():
                try:
                    await self._exchange(redis)
                    self._note(away=False, why="")
                except AWAY as error:
                    self._note(away=True, why=type(error).__name__)
                    await redis.aclose()  # its name may lead elsewhere by the next time
                await asyncio.sleep(PERIOD_S)
        finally:
            await redis.aclose()

    async def _exchange(self, redis: Any) -> None:
        if not self.opened.is_set():
            self._recall(await redis.get(decision_key(self._model)))
        self._hear(await redis.hgetall(held_key(self._model)))
        if gone := self._gone():
            await redis.hdel(held_key(self._model), *gone)
        self.opened.set()
        with self._lock:
            decision, changes = self._decision, list(self._changes)
        if decision is not None:
            await redis.set(decision_key(self._model), decision, ex=EXPIRE_S)
        for change in changes:
            await redis.lpush(log_key(self._model), change)
            with self._lock, suppress(ValueError):  # newer ones may have put it out meanwhile
                self._changes.remove(change)
        if changes:
            await redis.ltrim(log_key(self._model), 0, CHANGES - 1)

    def _recall(self, text: bytes | str | None) -> None:
        kept = _document(text or "")
        at_ms = _whole(kept, "at_ms")
        with self._lock:
            self._kept = kept if at_ms is not None and self._wall() - at_ms / 1000 < UNHEARD_S else None

    def _hear(self, fields: Mapping[bytes | str, bytes | str]) -> None:
        words = {}
        for name, text in fields.items():
            gateway = name if isinstance(name, str) else name.decode(errors="replace")
            words[gateway] = self._word(self._words.get(gateway), _document(text))
        with self._lock:
            self._words, self._answered = words, self._clock()

    def _word(self, before: Word | None, said: dict[str, Any] | None) -> Word:
        """What cannot be read says nothing, and is removed in its time."""
        at_ms, held, refused = (_whole(said, name) or 0 for name in ("at_ms", "held", "refused"))
        if before is not None and before.at_ms == at_ms:
            return replace(before, turns=held + refused)
        lives = before is not None or abs(self._wall() - at_ms / 1000) < UNHEARD_S
        return Word(at_ms, held + refused, self._clock(), lives)

    def _gone(self) -> list[str]:
        now = self._clock()
        return [name for name, word in self._words.items() if now - word.since > FORGET_S]

    def _note(self, *, away: bool, why: str) -> None:
        """Log a change of state, never a state."""
        if away and not self._away:
            log.warning("the autoscaler of %s does not reach Redis: %s", self._model, why)
        elif self._away and not away:
            log.info("the autoscaler of %s reaches Redis again", self._model)
        self._away = away


def _document(text: bytes | str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _whole(document: Mapping[str, Any] | None, name: str) -> int | None:
    """The number of this name, if it is one; without its fraction."""
    value = (document or {}).get(name)
    return int(value) if isinstance(value, int | float) and abs(value) < 1 << 53 else None
