"""The gateway's directory of replicas."""

import asyncio
from contextlib import suppress

import pytest

from services.backend.directory import Directory
from services.backend.link import Link
from services.backend.memory import MemoryLeases
from services.backend.port import Lease
from services.core.tasks import Tasks

LEASE = Lease(
    replica="r",
    address="127.0.0.1:1",
    model="m",
    revision="",
    epoch=1,
    capacity=8,
    engine="sim",
    context_length=100,
)


def crashed(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error}")


async def test_a_cancel_that_a_breaking_stream_swallows_ends_the_link_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As gRPC does when the cancel meets the stream's own end."""
    serving = asyncio.Event()

    async def serve(link: Link) -> str:
        again = serving.is_set()
        serving.set()
        with suppress(*(() if again else (asyncio.CancelledError,))):
            await asyncio.get_running_loop().create_future()
        return "broken"

    monkeypatch.setattr(Link, "serve", serve)
    tasks = Tasks(crashed)
    directory = Directory(MemoryLeases(LEASE), "g", "token", tasks, lambda lease, state, reason: None)
    await directory.refresh()
    async with asyncio.timeout(2):
        await serving.wait()
        await tasks.close()
    assert len(tasks) == 0
