"""A turn's events as one message: the whole answer, or as far as it is."""

from collections.abc import Sequence

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.events import Ending, Event, Failed, Finished, Started, TakenOver, Usage
from services.gateway import wire
from services.gateway.answer import Answer, fold


def response(events: Sequence[Event], *, shows_reasoning: bool) -> pb.GenerateResponse:
    """The whole of a turn that has ended. Raises the error that it ended with."""
    if events and isinstance(events[-1], Failed):
        raise events[-1].error
    return _response(events, shows_reasoning=shows_reasoning)


def turn_message(id: str, events: Sequence[Event], *, shows_reasoning: bool) -> pb.Turn:
    """The turn with these events, whatever its state."""
    turn = pb.Turn(id=id, state=pb.Turn.RUNNING, seq=len(events))
    turn.epoch = max((event.epoch for event in events if isinstance(event, TakenOver)), default=0)
    turn.answer.CopyFrom(_response(events, shows_reasoning=shows_reasoning))
    last = events[-1] if events else None
    if isinstance(last, Finished):
        turn.state = pb.Turn.FINISHED
    elif isinstance(last, Failed):
        turn.state = pb.Turn.FAILED
        wire.fill_error(turn.error, last)
    return turn


def _response(events: Sequence[Event], *, shows_reasoning: bool) -> pb.GenerateResponse:
    reply = pb.GenerateResponse()
    endings: tuple[Ending | None, ...] = ()
    for event in events:
        if isinstance(event, Started):
            reply.turn, reply.model = event.turn, event.model
            reply.messages_dropped = event.messages_dropped
        elif isinstance(event, Usage):
            reply.usage.CopyFrom(wire.usage(event))
        elif isinstance(event, Finished):
            reply.session_version, endings = event.session_version, event.endings
            reply.durability = wire.DURABILITY[event.durability]
    answers = fold(events, len(endings) or 1)
    _fill(reply, answers, endings or (None,) * len(answers), shows_reasoning)
    return reply


def _fill(
    reply: pb.GenerateResponse,
    answers: Sequence[Answer],
    endings: Sequence[Ending | None],
    shows_reasoning: bool,
) -> None:
    for i, (answer, ending) in enumerate(zip(answers, endings, strict=True)):
        into = reply if i == 0 else reply.more.add()
        into.message.CopyFrom(wire.message(answer.message(), shows_reasoning=shows_reasoning))
        into.logprobs.extend(wire.logprobs(answer.logprobs))
        if ending is not None:
            into.finish_reason = wire.REASONS[ending.reason]
            into.stop_sequence = ending.stop_sequence
