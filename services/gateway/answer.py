"""The answers of a turn as its journal tells them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.core.events import Answered, CallDelta, Delta, Ending, Event, Logprob, ReasoningDelta, Restarted
from services.core.request import Message, Role, ToolCall


@dataclass(slots=True)
class Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)

    def add(self, event: Event) -> None:
        if isinstance(event, Delta):
            self.text.append(event.text)
            self.logprobs += event.logprobs
        elif isinstance(event, ReasoningDelta):
            self.reasoning.append(event.text)
        elif isinstance(event, CallDelta):
            if event.id:
                self.calls.append(Call(event.id, event.name))
            self.calls[event.index].arguments.append(event.arguments)

    def message(self) -> Message:
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for call in self.calls)
        return Message(Role.ASSISTANT, "".join(self.text), "".join(self.reasoning), calls)


def fold(events: Iterable[Event], n: int = 1) -> list[Answer]:
    """The answers as they stand after these events; `n` at least."""
    answers = [Answer() for _ in range(n)]
    for event in events:
        if not isinstance(event, Delta | ReasoningDelta | CallDelta | Restarted):
            continue
        answers += [Answer() for _ in range(event.choice + 1 - len(answers))]
        if isinstance(event, Restarted):
            answers[event.choice] = Answer()
        else:
            answers[event.choice].add(event)
    return answers


@dataclass(slots=True)
class Past:
    """What an answer has behind it when another gateway goes on with it."""

    ids: list[int] = field(default_factory=list)
    held: bool = False  # to its format, since the model broke it
    answer: Answer = field(default_factory=Answer)


def pasts(events: Iterable[Event], n: int) -> list[Past]:
    """What lies behind each of the answers of a turn with these events."""
    all = [Past() for _ in range(n)]
    for event in events:
        if isinstance(event, Restarted):
            all[event.choice] = Past(held=event.held or all[event.choice].held)
        elif isinstance(event, Delta | ReasoningDelta | CallDelta):
            all[event.choice].ids += event.ids
            all[event.choice].answer.add(event)
    return all


def answered(events: Iterable[Event]) -> tuple[Ending, ...] | None:
    """How the answers ended, if all of them are whole."""
    return next((event.endings for event in events if isinstance(event, Answered)), None)
