"""What a caller sends, as plain values, and its form on the wire."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from services.api.headrace.v1 import inference_pb2 as pb

Role = Literal["system", "user", "assistant"]

ROLES: dict[Role, pb.Role] = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
}
NAMES: dict[int, Role] = {number: name for name, number in ROLES.items()}


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    text: str


Messages = str | Iterable[Message]  # a string is one message of the user


@dataclass(frozen=True, slots=True)
class Sampling:
    """None leaves the choice to the endpoint. Ranges: headrace/v1/inference.proto."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


def to_wire(messages: Messages) -> list[pb.Message]:
    said = [Message("user", messages)] if isinstance(messages, str) else messages
    return [pb.Message(role=ROLES[each.role], content=[pb.Part(text=each.text)]) for each in said]


def from_wire(message: pb.Message) -> Message:
    return Message(NAMES[message.role], "".join(part.text for part in message.content))


def sampling_to_wire(sampling: Sampling | None) -> pb.Sampling | None:
    if sampling is None:
        return None
    return pb.Sampling(**{name: value for name, value in asdict(sampling).items() if value is not None})
