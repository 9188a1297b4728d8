"""What a turn leaves in the figures of its gateway."""

from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from services.api.headrace.v1 import sessions_pb2
from services.gateway import meter
from services.store.connect import connect
from tests.support.gateway import MODEL, ask, mint_key, running_gateway, until
from tests.support.valkey import running_valkey


class Figures:
    """How much figures grew since this was made."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], float] = {}

    def _value(self, name: str, labels: dict[str, str]) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def watch(self, name: str, **labels: str) -> None:
        self._before[name, str(labels)] = self._value(name, labels)

    def grew(self, name: str, **labels: str) -> float:
        return self._value(name, labels) - self._before[name, str(labels)]


async def test_a_tenants_turns_and_tokens_are_counted_once() -> None:
    figures = Figures()
    turns: dict[str, Any] = {"tenant": "acme", "model": MODEL, "outcome": "completed"}
    tokens = [{"tenant": "acme", "model": MODEL, "kind": kind} for kind in ("prompt", "completion")]
    figures.watch("headrace_tenant_turns_total", **turns)
    for labels in tokens:
        figures.watch("headrace_tenant_tokens_total", **labels)
    async with running_gateway() as endpoint:
        events = await endpoint.stream(ask(max_tokens=7))
        await until(lambda: len(endpoint.deps.turns) == 0)
        assert REGISTRY.get_sample_value("headrace_tenant_turns_in_flight", {"tenant": "acme"}) == 0
    [usage] = [event.usage for event in events if event.HasField("usage")]
    assert figures.grew("headrace_tenant_turns_total", **turns) == 1
    assert figures.grew("headrace_tenant_tokens_total", **tokens[0]) == usage.prompt_tokens
    assert figures.grew("headrace_tenant_tokens_total", **tokens[1]) == usage.completion_tokens == 7


async def test_tenants_beyond_the_bound_are_counted_together() -> None:
    figures = Figures()
    labels = {"tenant": "other", "model": MODEL, "outcome": "completed"}
    figures.watch("headrace_tenant_turns_total", **labels)
    async with running_gateway() as endpoint:
        for i in range(200):
            endpoint.deps.tenants.of(f"seen-{i}")
        late = await mint_key(endpoint.stores, tenant="late")
        metadata = (("authorization", f"Bearer {late}"),)
        await endpoint.inference.Generate(ask(max_tokens=1), metadata=metadata)
    assert figures.grew("headrace_tenant_turns_total", **labels) == 1


async def test_what_changes_sessions_is_counted_by_outcome() -> None:
    figures = Figures()
    figures.watch("headrace_session_writes_total", outcome="completed")
    async with running_gateway() as endpoint:
        create = sessions_pb2.CreateSessionRequest()
        session = await endpoint.sessions.Create(create, metadata=endpoint.auth)
        await endpoint.stream(ask(session=session.id, max_tokens=1))
        delete = sessions_pb2.DeleteSessionRequest(id=session.id)
        await endpoint.sessions.Delete(delete, metadata=endpoint.auth)
    assert (
        figures.grew("headrace_session_writes_total", outcome="completed") == 3
    )  # created, appended, deleted


async def test_a_turn_that_finds_its_session_busy_is_counted() -> None:
    figures = Figures()
    figures.watch("headrace_session_busy_total")
    async with running_gateway() as endpoint:
        create = sessions_pb2.CreateSessionRequest()
        session = await endpoint.sessions.Create(create, metadata=endpoint.auth)
        await endpoint.deps.sessions.acquire("acme", session.id, "another", 10)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(ask(session=session.id, max_tokens=1))
        assert refusal.value.code() is grpc.StatusCode.ABORTED
    assert figures.grew("headrace_session_busy_total") == 1


async def test_calls_to_the_store_are_timed_by_command() -> None:
    figures = Figures()
    figures.watch("headrace_store_seconds_count", operation="set")
    figures.watch("headrace_store_seconds_count", operation="pipeline")
    with running_valkey() as server:
        client = connect(server.url, timeout=5, call=meter.store_call)
        await client.set("a", "b")
        await client.pipeline().get("a").execute()
        await client.aclose()
    assert figures.grew("headrace_store_seconds_count", operation="set") == 1
    assert figures.grew("headrace_store_seconds_count", operation="pipeline") == 1


async def test_the_gauges_follow_the_links() -> None:
    async with running_gateway() as endpoint:
        [link] = endpoint.deps.directory.links()
        link.ping()
        await until(lambda: link.round_trip > 0)
        there = meter.gauge(endpoint.deps, set())
        labels = {"model": MODEL, "replica": "sim-0"}
        assert there == {(MODEL, "sim-0")}
        assert REGISTRY.get_sample_value("headrace_link_up", labels) == 1
        assert REGISTRY.get_sample_value("headrace_link_round_trip_seconds", labels) == link.round_trip
        assert REGISTRY.get_sample_value("headrace_turns_capacity") == endpoint.deps.settings.max_turns
