"""The answers of a turn as its journal tells them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.core.events import CallDelta, Delta, Event, Logprob, ReasoningDelta, Restarted
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
        if isinstance(event, Restarted):
            answers[event.choice] = Answer()
        elif isinstance(event, Delta | ReasoningDelta | CallDelta):
            answers[event.choice].add(event)
    return answers
