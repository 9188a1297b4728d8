"""A turn being read: an async iterator of its events that remembers how far it is."""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Self

from services.client.errors import translated
from services.client.events import Event, Started, from_wire


class Stream:
    """Iterate it for the events. Leaving its `async with` early, or `cancel`, ends the turn at the engine.

        async with client.stream("Hello") as stream:
            async for event in stream: ...

    `turn` and `seq` are the position: what a reader that lost its connection resumes from.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._events = self._read()
        self.turn = ""
        self.seq = 0

    def cancel(self) -> None:
        self._call.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[Event, None]:
        async with translated():
            async for wire in self._call:
                self.seq = max(self.seq, wire.seq)
                event = from_wire(wire)
                if isinstance(event, Started):
                    self.turn = event.turn
                if event is not None:
                    yield event
