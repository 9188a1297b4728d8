"""What a caller of the SDK has in the end is what the turn said, whatever was lost on the way."""

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.client import Delta, Event, Logprob, Message, ReasoningDelta, Rewind, ToolCall, ToolCallDelta
from services.client.rewind import Said, Told

Piece = tuple[int, str, str]  # choice, kind, text
KINDS = ("text", "reasoning", "call")
pieces = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(KINDS), st.text("ab", min_size=1, max_size=4)), max_size=12
)


@dataclass(slots=True)
class Caller:
    """Does with the events what a caller does: appends, and draws again at a rewind."""

    answers: dict[int, Message] = field(default_factory=dict)
    tokens: int = 0
    rewinds: int = 0

    def hear(self, event: Event) -> None:
        if isinstance(event, Rewind):
            self.answers = dict(enumerate(event.answers))
            self.rewinds += 1
        elif isinstance(event, Delta | ReasoningDelta | ToolCallDelta):
            self.tokens += event.tokens
            self.answers[event.choice] = added(self.answers.get(event.choice, Message("assistant")), event)


def added(answer: Message, event: Said) -> Message:
    text, reasoning, calls = answer.text, answer.reasoning, list(answer.calls)
    if isinstance(event, Delta):
        text += event.text
    elif isinstance(event, ReasoningDelta):
        reasoning += event.text
    elif event.id:
        calls.append(ToolCall(event.id, event.name, event.arguments))
    else:
        calls[-1] = ToolCall(calls[-1].id, calls[-1].name, calls[-1].arguments + event.arguments)
    return Message("assistant", text, reasoning, tuple(calls))


def events(said: list[Piece], begun: frozenset[int] = frozenset(), id: str = "c") -> list[Said]:
    """The deltas of a turn; choices in `begun` have their call already. A token for each character."""
    made: list[Said] = []
    with_call = set(begun)
    for choice, kind, text in said:
        if kind == "text":
            made.append(Delta(1, text, len(text), choice))
        elif kind == "reasoning":
            made.append(ReasoningDelta(1, text, len(text), choice))
        else:
            first = choice not in with_call
            with_call.add(choice)
            made.append(
                ToolCallDelta(1, 0, text, len(text), id if first else "", "f" if first else "", choice)
            )
    return made


def after(said: list[Said]) -> Caller:
    caller = Caller()
    for event in said:
        caller.hear(event)
    return caller


def cut(said: list[Piece], at: int) -> tuple[list[Piece], list[Piece]]:
    """Before and after so many characters, as one delta is cut by a journal that ends within it."""
    before: list[Piece] = []
    for place, (choice, kind, text) in enumerate(said):
        if at < len(text):
            left = [(choice, kind, text[:at])] if at else []
            return before + left, [(choice, kind, text[at:]), *said[place + 1 :]]
        before.append((choice, kind, text))
        at -= len(text)
    return before, []


def read(told: list[Piece], standing: list[Piece], anew: list[Said]) -> Caller:
    """A caller who was told `told`; then the turn stood at `standing` and went on with `anew`."""
    book, caller = Told(whole=True), Caller()
    heard = [event for said in events(told) for event in book.heard(said)]
    stands = after(events(standing)).answers
    answers = [stands.get(choice, Message("assistant")) for choice in range(2)]
    heard += book.rewound(answers, 1)
    heard += [event for said in anew for event in book.heard(said)]
    for event in (*heard, *book.ended(1)):
        caller.hear(event)
    return caller


def begun(standing: list[Piece]) -> frozenset[int]:
    return frozenset(choice for choice, kind, _ in standing if kind == "call")


def filled(answers: dict[int, Message]) -> list[Message]:
    return [answers.get(choice, Message("assistant")) for choice in range(2)]


@settings(deadline=None)
@example([(0, "call", "aaa")], 2, 1)
@given(pieces, st.integers(0, 48), st.integers(0, 48))
def test_what_is_said_again_as_it_was_is_heard_once(said: list[Piece], read_to: int, kept_to: int) -> None:
    told, _ = cut(said, read_to)
    standing, anew = cut(said, min(read_to, kept_to))
    caller = read(told, standing, events(anew, begun(standing)))
    whole = after(events(said))
    assert filled(caller.answers) == filled(whole.answers)
    assert (caller.tokens, caller.rewinds) == (whole.tokens, 0)


@settings(deadline=None)
@given(pieces, st.integers(0, 48), pieces)
def test_what_is_said_otherwise_is_what_the_caller_has_in_the_end(
    told: list[Piece], kept_to: int, anew: list[Piece]
) -> None:
    standing, _ = cut(told, kept_to)
    caller = read(told, standing, events(anew, begun(standing), id="another"))
    continued = after([*events(standing), *events(anew, begun(standing), id="another")])
    assert filled(caller.answers) == filled(continued.answers)
    assert caller.rewinds <= 1


def test_a_reader_from_the_middle_is_always_told_of_a_rewind() -> None:
    book = Told(whole=False)
    assert list(book.rewound([Message("assistant", "Rome")], 7)) == [
        Rewind(7, (Message("assistant", "Rome"),))
    ]
    delta = Delta(8, "!", 1)
    assert list(book.heard(delta)) == [delta]
    assert list(Told(whole=False).rewound([Message("assistant")], 1)) == [Rewind(1, (Message("assistant"),))]


def test_log_probabilities_of_what_was_heard_are_not_given_twice() -> None:
    book = Told(whole=True)
    list(book.heard(Delta(1, "ab", 2)))
    list(book.rewound([Message("assistant", "a")], 1))
    scores = tuple(Logprob(token, -1.0) for token in (b"b", b"c"))
    [rest] = book.heard(Delta(2, "bc", 2, logprobs=scores))
    assert rest == Delta(2, "c", 1, logprobs=scores[1:])


def test_an_answer_that_ends_before_what_was_told_is_drawn_again() -> None:
    book = Told(whole=True)
    list(book.heard(Delta(1, "abc", 3)))
    assert list(book.rewound([Message("assistant", "a")], 1)) == []
    assert list(book.ended(2)) == [Rewind(2, (Message("assistant", "a"),))]
