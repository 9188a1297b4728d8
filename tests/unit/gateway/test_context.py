"""What a prompt keeps of a history that outgrew the context: as much as fits, in whole turns."""

from itertools import count as counting

from hypothesis import given
from hypothesis import strategies as st

from services.core.request import Ask, Message, Role, ToolCall
from services.gateway.context import (
    HEADING,
    STEPS,
    Kept,
    Messages,
    droppable,
    fitting,
    room_for,
    shown,
    summarized,
    turns_of,
)
from services.sessions.port import Summary

BRIEF = Message(Role.SYSTEM, "be brief")
OVERHEAD = 3  # tokens of a message, besides its text


async def tokens(messages: Messages) -> int:
    return sum(OVERHEAD + message.size for message in messages)


def said(text: str) -> tuple[Message, Message]:
    return Message(Role.USER, f"ask {text}"), Message(Role.ASSISTANT, f"say {text}")


@st.composite
def exchanges(draw: st.DrawFn) -> list[Message]:
    """A user's words, then an answer, or calls of which each may have its result, at once or later."""
    messages: list[Message] = []
    ids = counting()
    open_calls: list[str] = []
    text = st.text("ab", max_size=12)
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 5)) == 0:
            messages.append(Message(Role.SYSTEM, draw(text)))
        if open_calls and draw(st.booleans()):
            messages.append(Message(Role.TOOL, draw(text), call_id=open_calls.pop(0)))
        else:
            messages += [Message(Role.USER, draw(text))] * draw(st.integers(1, 2))
        calls = tuple(ToolCall(f"call_{next(ids)}", "f", "{}") for _ in range(draw(st.integers(0, 2))))
        messages.append(Message(Role.ASSISTANT, draw(text), calls=calls))
        open_calls += [call.id for call in calls]
    return messages


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Message], list[Message]]:
    """A history and what is new: a user's message, or the results of calls of the history."""
    history = draw(exchanges())
    answered = {m.call_id for m in history}
    waiting = [call.id for m in history for call in m.calls if call.id not in answered]
    if waiting and draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        return history, [Message(Role.TOOL, "r", call_id=id) for id in chosen]
    return history, [Message(Role.USER, draw(st.text("ab", max_size=12)))]


def orphans(messages: Messages) -> list[str]:
    called: set[str] = set()
    alone = []
    for message in messages:
        if message.call_id and message.call_id not in called:
            alone.append(message.call_id)
        called |= {call.id for call in message.calls}
    return alone


rooms = st.integers(0, 400)


@given(conversations())
def test_the_turns_of_a_history_are_all_of_it(conversation: tuple[list[Message], list[Message]]) -> None:
    history, new = conversation
    assert [message for turn in turns_of(history, new) for message in turn] == history


@given(conversations(), rooms)
async def test_what_fits_is_as_much_as_can_and_never_more(
    conversation: tuple[list[Message], list[Message]], room: int
) -> None:
    history, new = conversation
    turns = turns_of(history, new)
    kept = await fitting(turns, new, tokens, room)
    choices = []
    for n in range(droppable(turns, new) + 1):
        systems = [m for turn in turns[:n] for m in turn if m.role is Role.SYSTEM]
        choices.append((*systems, *(m for turn in turns[n:] for m in turn), *new))
    fits = [choice for choice in choices if await tokens(choice) <= room]
    assert kept.messages == (fits[0] if fits else choices[-1])
    assert kept.dropped == len(history) + len(new) - len(kept.messages)
    assert shown(history, new, kept.gone, kept.text) == kept


@given(conversations(), rooms)
async def test_no_result_is_parted_from_its_call_and_system_messages_stay(
    conversation: tuple[list[Message], list[Message]], room: int
) -> None:
    history, new = conversation
    kept = await fitting(turns_of(history, new), new, tokens, room)
    assert not orphans(kept.messages)
    assert [m for m in kept.messages if m.role is Role.SYSTEM] == [
        m for m in history if m.role is Role.SYSTEM
    ]
    assert list(kept.messages[len(kept.messages) - len(new) :]) == new


async def test_the_search_counts_few_times() -> None:
    asked = 0

    async def once_more(messages: Messages) -> int:
        nonlocal asked
        asked += 1
        return await tokens(messages)

    history = [message for n in range(500) for message in said(str(n))]
    kept = await fitting(turns_of(history), [Message(Role.USER, "x")], once_more, 1000)
    assert 0 < kept.dropped < 1000 and asked <= 10


async def test_a_tool_loop_over_many_turns_goes_as_one() -> None:
    loop = [
        Message(Role.USER, "weather?"),
        Message(Role.ASSISTANT, calls=(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))),
        Message(Role.TOOL, "1", call_id="a"),
        Message(Role.USER, "and?"),
        Message(Role.TOOL, "2", call_id="b"),
        Message(Role.ASSISTANT, "fine"),
    ]
    assert turns_of([BRIEF, *said("1"), *loop, *said("2")]) == [(BRIEF, *said("1")), tuple(loop), said("2")]


async def test_a_turn_whose_results_are_new_stays() -> None:
    calling = [Message(Role.USER, "weather?"), Message(Role.ASSISTANT, calls=(ToolCall("a", "f", "{}"),))]
    result = Message(Role.TOOL, "25", call_id="a")
    history = [*said("1"), *calling]
    kept = await fitting(turns_of(history, [result]), [result], tokens, 0)
    assert kept == Kept((*calling, result), 2, 2)


def test_the_room_is_what_the_answer_leaves() -> None:
    assert room_for(Ask("m", (), max_tokens=100), 1000) == 900
    assert room_for(Ask("m", ()), 1000) == 1000 - 125
    assert room_for(Ask("m", ()), 100_000) == 100_000 - 256
    assert room_for(Ask("m", (), min_tokens=600), 1000) == 400


class Model:
    """Sums up by naming what it was shown, in at most so many tokens."""

    def __init__(self, text: str = "") -> None:
        self.asked: list[Messages] = []
        self._text = text

    async def __call__(self, messages: Messages, limit: int) -> str:
        self.asked.append(messages)
        return (self._text or f"sum {len(self.asked)}")[:limit]


HISTORY = [BRIEF, *(message for n in range(100, 160) for message in said(f"{n} ".ljust(40, ".")))]
NEW = [Message(Role.USER, "go on")]
ROOM, LIMIT = 1500, 200


async def test_a_history_that_fits_needs_no_summary() -> None:
    model = Model()
    kept = await summarized(HISTORY[:5], NEW, None, tokens, ROOM, LIMIT, model)
    assert kept == Kept((*HISTORY[:5], *NEW)) and not model.asked


async def test_a_summary_takes_the_place_of_the_oldest_turns() -> None:
    model = Model()
    kept = await summarized(HISTORY, NEW, None, tokens, ROOM, LIMIT, model)
    assert kept.summary is not None and await tokens(kept.messages) <= ROOM
    covers = kept.summary.covers
    assert kept.dropped == covers - 1  # the system message stays
    assert shown(HISTORY, NEW, kept.gone, kept.text).messages == kept.messages
    assert kept.messages[0] == BRIEF and kept.messages[2:] == (*HISTORY[covers + 1 :], *NEW)
    told = kept.messages[1]
    assert (told.role, told.text) == (
        Role.USER,
        f"{HEADING}{kept.summary.text}\n\n{HISTORY[covers].text}",
    )
    asked = "".join(message.text for messages in model.asked for message in messages)
    assert all(message.text in asked for message in HISTORY[1:covers])
    assert HISTORY[covers].text not in asked
    for messages in model.asked:
        assert await tokens(messages) <= ROOM - LIMIT


async def test_a_summary_is_used_again_and_extended_only_when_it_has_to_be() -> None:
    first = await summarized(HISTORY, NEW, None, tokens, ROOM, LIMIT, Model())
    model = Model("extended")
    again = await summarized(HISTORY, NEW, first.summary, tokens, ROOM, LIMIT, model)
    assert again.messages == first.messages and again.summary is None and not model.asked
    longer = [*HISTORY, *(message for n in range(9) for message in said(f"{n} ".ljust(40, "+")))]
    grown = await summarized(longer, NEW, first.summary, tokens, ROOM, LIMIT, model)
    assert first.summary and grown.summary and grown.summary.covers > first.summary.covers
    assert grown.summary.text == "extended" and first.summary.text in model.asked[0][1].text
    asked = "".join(message.text for messages in model.asked for message in messages)
    assert HISTORY[first.summary.covers - 1].text not in asked


async def test_a_message_longer_than_the_context_is_summed_up_in_part() -> None:
    model = Model()
    history = [Message(Role.USER, "x" * 5000), Message(Role.ASSISTANT, "fine")]
    kept = await summarized(history, NEW, None, tokens, ROOM, LIMIT, model)
    assert kept.summary and kept.summary.covers == 2 and await tokens(kept.messages) <= ROOM
    for messages in model.asked:
        assert await tokens(messages) <= ROOM - LIMIT


async def test_a_history_without_end_takes_a_bounded_number_of_generations() -> None:
    model = Model()
    history = [message for _ in range(5000) for message in said("x" * 90)]
    await summarized(history, NEW, None, tokens, ROOM, LIMIT, model)
    assert len(model.asked) <= 5 * STEPS  # a token is a byte here: the worst case


async def test_a_summary_that_says_nothing_or_too_much_still_fits() -> None:
    for text in (" ", "w" * 10_000):

        async def summing(messages: Messages, limit: int, text: str = text) -> str:
            return text

        kept = await summarized(HISTORY, NEW, None, tokens, ROOM, LIMIT, summing)
        assert kept.summary and await tokens(kept.messages) <= ROOM


@given(conversations(), st.integers(300, 900), st.integers(0, 40))
async def test_a_summary_parts_no_call_from_its_result(
    conversation: tuple[list[Message], list[Message]], room: int, covers: int
) -> None:
    history, new = conversation
    known = Summary(min(covers, len(history)), "known") if covers and history else None
    kept = await summarized(history, new, known, tokens, room, 40, Model())
    assert not orphans(kept.messages)
    assert [m for m in kept.messages if m.role is Role.SYSTEM] == [
        m for m in history if m.role is Role.SYSTEM
    ]
