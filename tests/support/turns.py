"""A turn without a gateway, for what needs no more."""

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.clock import Clock, Deadline, SystemClock
from services.core.request import Ask, Message, Role, Tenant
from services.gateway.asked import Asked, Life
from services.gateway.turn import Turn


def an_asked(**ask: object) -> Asked:
    said = Ask("model", (Message(Role.USER, "hello"),), **ask)  # type: ignore[arg-type]
    return Asked(Tenant("acme", "key"), pb.GenerateRequest(), said, Life(10.0))


def new_turn(id: str = "turn_1", clock: Clock | None = None, **ask: object) -> Turn:
    clock = clock or SystemClock()
    return Turn(id, an_asked(**ask), clock, Deadline(None), clock.monotonic(), clock.now())
