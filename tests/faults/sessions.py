"""Conversations kept by the endpoint, each turn of them asked to be durable."""

import asyncio
from dataclasses import dataclass, field

import grpc

from services.api.headrace.v1 import sessions_pb2
from tests.faults.caller import Caller, details_of
from tests.faults.checks import SHORT
from tests.faults.history import History

TURNS = 6


@dataclass(slots=True)
class Conversation:
    """A session's turns, one after the other, each asked to be durable."""

    session: str
    histories: list[History] = field(default_factory=list)

    async def go_on(self, caller: Caller, count: int, heard: asyncio.Queue[History]) -> None:
        """Up to so many turns; it ends with one that did not complete."""
        for i in range(len(self.histories), count):
            history = caller.history(f"turn {i}", key=f"{self.session} {i}", seconds=30)
            self.histories.append(history)
            await caller.run(history, session=self.session, durable=True, max_tokens=SHORT)
            heard.put_nowait(history)
            if not history.completed:
                return


async def conversations(caller: Caller, count: int) -> list[Conversation]:
    stub = caller.sessions()
    made = [
        await stub.Create(sessions_pb2.CreateSessionRequest(), metadata=caller.auth) for _ in range(count)
    ]
    return [Conversation(session.id) for session in made]


async def kept(caller: Caller, talks: list[Conversation], gateway: str) -> list[str]:
    """Every answer that the store has, with its session."""
    return [
        f"{talk.session}: {text}" for talk in talks for text in await answers(caller, talk.session, gateway)
    ]


async def answers(caller: Caller, session: str, gateway: str = "") -> list[str]:
    """What a session's messages say; asks until the store answers."""
    stub, request = caller.sessions(gateway), sessions_pb2.GetSessionRequest(id=session)
    async with asyncio.timeout(20):
        while True:
            try:
                reply = await stub.Get(request, metadata=caller.auth, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(details_of(error)[1])
            else:
                return [part.text for message in reply.messages for part in message.content]


def acknowledged(talks: list[Conversation]) -> list[str]:
    return [f"{talk.session}: {h.text}" for talk in talks for h in talk.histories if h.acknowledged]


async def session_twins(caller: Caller) -> dict[str, str]:
    """The answers of a conversation that nothing happens to."""
    [talk] = await conversations(caller, 1)
    await talk.go_on(caller, TURNS, asyncio.Queue())
    assert all(history.completed for history in talk.histories), talk.histories[-1].attempts
    return {history.prompt: history.text for history in talk.histories}
