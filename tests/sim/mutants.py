"""Bugs to be found: each one changes the real code for as long as its context is open."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from services.core.errors import Draining
from services.core.events import Finished
from services.gateway import pipeline, reader
from services.gateway.admission import Admission
from services.gateway.generation import Generation
from services.gateway.takeover import Takeover
from services.gateway.turn import Turn
from services.journal.memory import MemoryJournal
from services.journal.memory_store import MemoryJournalStore
from services.journal.mirror import Mirrors
from services.journal.port import Batch, Reply, Verdict
from services.journal.recorder import Recorder
from tests.sim.world import live

Patch = tuple[Any, str, Any]


def _no_fence(self: MemoryJournalStore, batch: Batch) -> Reply:
    kept = self._kept(batch.turn)
    return _append(self, batch if kept is None else replace(batch, epoch=kept.record.epoch))


def _any_order(self: MemoryJournalStore, batch: Batch) -> Reply:
    kept = self._kept(batch.turn)
    if kept is None or kept.record.epoch != batch.epoch:
        return _append(self, batch)
    self._keep(kept, batch, batch.first + len(batch.events) - 1)
    return Reply(Verdict.KEPT, kept.seq, kept.size, math.inf)


def _told_early(self: MemoryJournal, on_append: Callable[[MemoryJournal], None]) -> None:
    self._on_append = on_append


def _forgets_left(self: MemoryJournal, turn: str, error: Any = None) -> None:
    self._wake()


async def _same_epoch(self: MemoryJournalStore, turn: str, owner: str, gateway: str, least: int = 0) -> Any:
    stored = await _take(self, turn, owner, gateway)
    kept = self._kept(turn)
    if stored is None or kept is None:
        return None
    kept.record = replace(kept.record, epoch=0)
    return self._stored(kept)


async def _no_claim(self: MemoryJournalStore, record: Any) -> str:
    return await _create(self, replace(record, claim=None))


async def _answer_again(endings: Any, session: Any, turn: Turn, deps: Any) -> int:
    answer = pipeline.fold(turn.journal.events)[0].message()
    said = (*turn.asked.ask.messages, answer)
    return await deps.sessions.append(turn.tenant.id, session.id, session.version, said, model=turn.model)


async def _no_strays(self: Takeover) -> None: ...


def _leaves_once(self: Turn, turn: str, error: Any = None) -> None:
    if self.outcome is None:
        _leave(self, turn, error)


def _sealed_by_sending(self: Recorder, recording: Any) -> None:
    _again(self, recording)
    if recording.journal.closed and isinstance(recording.journal.events[-1], Finished):
        recording.journal.seal()


def _any_page(self: Mirrors, mirror: Any, page: Any) -> bool:
    return True


_append, _take, _create = MemoryJournalStore._append, MemoryJournalStore.take, MemoryJournalStore.create
_leave, _again, _slot = Turn.leave, Recorder._again, Admission.slot


async def _any_epoch(self: MemoryJournalStore, turn: str, owner: str, gateway: str, least: int = 0) -> Any:
    return await _take(self, turn, owner, gateway)


async def _unknown_creator(self: MemoryJournalStore, record: Any) -> str:
    known = set(self._gateways)
    holder = await _create(self, record)
    if record.gateway not in known:
        self._gateways.pop(record.gateway, None)
    return holder


def _held_back(self: Generation, cause: Any) -> list[Any]:
    return []


@contextmanager
def _closed_to_all(self: Admission, *, forced: bool = False) -> Iterator[None]:
    if not self._open:
        raise Draining("this gateway is shutting down")
    with _slot(self, forced=forced):
        yield


async def _leaves_and_stays(self: Takeover) -> None:
    await self._deps.journals.beat(self._deps.name, 0)


MUTANTS: dict[str, list[Patch]] = {
    "the store does not check the epoch": [(MemoryJournalStore, "_append", _no_fence)],
    "the store takes events in any order": [(MemoryJournalStore, "_append", _any_order)],
    "an ending is told before the store has it": [(MemoryJournal, "keep", _told_early)],
    "readers are not sent on": [(MemoryJournal, "leave", _forgets_left)],
    "a reader that was ahead is not rewound": [(reader, "standing", lambda events, epoch, seq: seq)],
    "a takeover keeps the epoch": [(MemoryJournalStore, "take", _same_epoch)],
    "a claim is not kept": [(MemoryJournalStore, "create", _no_claim)],
    "a turn goes on without its past": [(pipeline, "pasts", lambda past, n: [None] * n)],
    "an answer is appended without its operation": [(pipeline, "keep_answer", _answer_again)],
    "strays are not looked for": [(Takeover, "_find_strays", _no_strays)],
    "a fenced ending keeps its readers": [(Turn, "leave", _leaves_once)],
    "an ending that was not taken is told": [(Recorder, "_again", _sealed_by_sending)],
    "a takeover may have the epoch of a forgotten one": [(MemoryJournalStore, "take", _any_epoch)],
    "who creates a turn is not known as a gateway": [(MemoryJournalStore, "create", _unknown_creator)],
    "the end of an answer is not read again": [(Generation, "replay_end", _held_back)],
    "a gateway that leaves takes turns over": [
        (Takeover, "leave", _leaves_and_stays),
        (Admission, "closed", False),
        (Admission, "slot", _closed_to_all),
    ],
}


FOCUS: dict[str, Sequence[tuple[str, str]]] = {  # faults without which a bug is hard to find
    "an answer is appended without its operation": [("kill_at", "sessions.append")] * 2,
    "a takeover may have the epoch of a forgotten one": [("take_is_forgotten", "")],
    "a gateway that leaves takes turns over": [("drain", ""), ("kill", "")],
    "who creates a turn is not known as a gateway": [("cut", ""), ("kill_at", "create")],
    "a fenced ending keeps its readers": [("freeze", "")],
    "the store does not check the epoch": [("freeze", "")],
    "an ending is told before the store has it": [("cut", ""), ("kill", "")],
    "an ending that was not taken is told": [("cut", ""), ("kill", "")],
}


def first(bug: str, most: int) -> int | None:
    """The first seed in which the bug breaks a promise."""
    with mutated(bug):
        return next((seed for seed in range(most) if live(seed, FOCUS.get(bug, ())).violations), None)


@contextmanager
def mutated(name: str) -> Iterator[None]:
    patches = MUTANTS[name]
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, value in patches:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)
