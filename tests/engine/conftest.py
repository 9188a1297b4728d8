"""One real vLLM engine for the whole session: starting it is what these tests cost."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from tests.support.engine_micro import micro_settings

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that kills the engine comes last, after every test that needs it."""
    items.sort(key=lambda item: "kill" in item.name)


@pytest.fixture(scope="session", autouse=True)
def scratch() -> Iterator[None]:
    """vLLM's sockets and rendezvous files go with this folder; a killed engine leaves them behind."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session")
def collectors() -> list[Any]:
    """What vLLM has registered with Prometheus for `llm`; the next engine of this process unregisters it."""
    return []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llm(scratch: None, collectors: list[Any]) -> "AsyncIterator[AsyncLLM]":
    settings: Any = micro_settings()
    import asyncio

    from cluster.engine.vllm import open_llm

    llm = await asyncio.to_thread(open_llm, settings)
    collectors += [
        each for each in REGISTRY._collector_to_names if str(getattr(each, "_name", "")).startswith("vllm:")
    ]
    yield llm
    await asyncio.to_thread(llm.shutdown)
