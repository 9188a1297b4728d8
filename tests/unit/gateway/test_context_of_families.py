"""Leaving turns out with the tokens that a real family counts: what the search takes for granted holds there."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.core.clock import SystemClock
from services.core.request import Conversation, Function, Message, Role, ToolCall
from services.gateway.context import Count, Messages, droppable, fitting, summarized, turns_of
from services.text.families import load
from services.text.family import Family
from tests.support.gateway import CHECKPOINTS

NEW = [Message(Role.USER, "and now?")]


@pytest.fixture(scope="module", params=sorted(CHECKPOINTS))
def family(request: pytest.FixtureRequest) -> Family:
    return load(Path(CHECKPOINTS[request.param]), SystemClock())


def history(family: Family) -> list[Message]:
    """Twelve turns, each third with a tool loop where the model knows tools."""
    messages = [Message(Role.SYSTEM, "Be brief.")]
    for n in range(12):
        messages.append(Message(Role.USER, f"question {n} " + "word " * (7 * n % 40)))
        if family.abilities.tools and n % 3 == 0:
            calls = (ToolCall(f"call_{n}", "f", '{"a": 1}'),)
            messages += [
                Message(Role.ASSISTANT, "", "thinking", calls),
                Message(Role.TOOL, "25", call_id=f"call_{n}"),
            ]
        messages.append(Message(Role.ASSISTANT, f"answer {n}"))
    return messages


def counting(family: Family) -> Count:
    functions = (Function("f", "does f"),) if family.abilities.tools else ()

    async def count(messages: Messages) -> int:
        return len(family.prompt(Conversation(messages, functions, date="2026-01-01")))

    return count


def without(turns: Sequence[Messages], n: int) -> Messages:
    systems = [m for turn in turns[:n] for m in turn if m.role is Role.SYSTEM]
    return (*systems, *(m for turn in turns[n:] for m in turn), *NEW)


async def test_as_little_as_can_is_left_out_of_a_real_prompt(family: Family) -> None:
    said, count = history(family), counting(family)
    turns = turns_of(said, NEW)
    assert len(turns) == 12
    counts = [await count(without(turns, n)) for n in range(droppable(turns, NEW) + 1)]
    assert counts == sorted(counts, reverse=True)
    for room in range(counts[-1], counts[0] + 20, 13):
        kept = await fitting(turns, NEW, count, room)
        assert kept.messages == without(turns, next(n for n, tokens in enumerate(counts) if tokens <= room))


async def test_a_real_prompt_with_a_summary_fits(family: Family) -> None:
    said, count = history(family), counting(family)

    async def summarize(messages: Messages, limit: int) -> str:
        assert await count(messages) <= room
        return "they asked and were answered"

    room = await count((*said, *NEW)) * 3 // 4
    kept = await summarized(said, NEW, None, count, room, 30, summarize)
    assert kept.summary and kept.dropped and await count(kept.messages) <= room
