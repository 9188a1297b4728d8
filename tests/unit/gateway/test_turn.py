"""A turn ends once; its journal is gapless and every reader sees the same."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import Cancelled, EngineLost
from services.core.events import Delta, Ending, Failed, Finished, FinishReason, Started, Usage
from services.gateway import wire
from services.gateway.answer import fold
from services.gateway.turn import Turn
from services.journal.memory import MOST
from tests.support.turns import new_turn


async def read_all(turn: Turn) -> list[object]:
    events: list[object] = []
    after = 0
    while entries := await turn.journal.read(after):
        assert [e.seq for e in entries] == list(range(after + 1, after + 1 + len(entries)))
        after = entries[-1].seq
        events += [e.event for e in entries]
    return events


async def test_the_first_ending_wins() -> None:
    turn = new_turn()
    turn.start(3)
    turn.finish((Ending(FinishReason.STOP),), 0)
    turn.fail(EngineLost("late"))
    turn.append(Delta("late", [1]))
    assert [type(e) for e in await read_all(turn)] == [Started, Usage, Finished]


async def test_a_refusal_before_the_start_is_the_only_event() -> None:
    turn = new_turn()
    turn.fail(Cancelled("gone"))
    assert [type(e) for e in await read_all(turn)] == [Failed]
    assert list(wire.messages(await turn.journal.read(0))) == []


async def test_a_closed_journal_takes_nothing() -> None:
    turn = new_turn()
    turn.fail(Cancelled("gone"))
    with pytest.raises(ValueError, match="terminal"):
        turn.journal.append(Delta("x", [1]))


async def test_a_reader_that_comes_late_is_told_in_messages_of_bounded_size() -> None:
    """A turn of 100 000 events with their log probabilities is more than a client takes in one message."""
    turn = new_turn()
    turn.start(1)
    for i in range(3 * MOST):
        turn.append(Delta("x", [i]))
    turn.finish((Ending(FinishReason.STOP),), 0)
    seq, told = 0, list[int]()
    while entries := await turn.journal.read(seq):
        seq = entries[-1].seq
        told += [message.delta.tokens for message in wire.messages(entries)]
    assert max(told) <= MOST and sum(told) == 3 * MOST


async def test_readers_at_different_paces_see_the_same() -> None:
    turn = new_turn()
    readers = [asyncio.create_task(read_all(turn)) for _ in range(3)]
    turn.start(1)
    for i in range(10):
        turn.append(Delta(str(i), [i]))
        if i % 3 == 0:
            await asyncio.sleep(0)
    turn.finish((Ending(FinishReason.LENGTH),), 0)
    seen = await asyncio.gather(*readers, read_all(turn))
    assert all(events == seen[0] for events in seen) and len(seen[0]) == 13


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_coalescing_keeps_text_tokens_and_order(batches: list[int]) -> None:
    async def run() -> None:
        turn = new_turn()
        turn.start(1)
        for i in range(sum(batches)):
            turn.append(Delta(chr(97 + i % 26), [i]))
        turn.finish((Ending(FinishReason.STOP),), 0)
        entries = list(await turn.journal.read(0))
        cuts = [0]
        for size in batches:
            cuts.append(cuts[-1] + size)
        cuts.append(len(entries))
        parts = [m for a, b in pairwise(cuts) for m in wire.messages(entries[a:b])]
        assert "".join(m.delta.text for m in parts) == "".join(fold(e.event for e in entries)[0].text)
        assert sum(m.delta.tokens for m in parts) == sum(batches)
        assert [m.seq for m in parts] == sorted({m.seq for m in parts})

    asyncio.run(run())
