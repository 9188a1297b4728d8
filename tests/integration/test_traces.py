"""One trace from the caller to the engine, told to a real collector, with nothing of what was said in it."""

import asyncio
import socket
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from cluster.telemetry.otlp import EXPORT_S
from services.api.headrace.v1 import inference_pb2 as pb
from services.client import Client
from services.telemetry.traces import MAX_VALUE
from tests.integration.test_migration import SLOW, TOKENS, lost_after
from tests.integration.test_resume import resumed
from tests.support.collector import Collector, Told, running_collector
from tests.support.gateway import MODEL, ask, running_gateway
from tests.support.gateways import first, rest, running_gateways

SECRET = "xyzzy-plugh"  # what the caller says
PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
STAGES = ("identify", "claim", "admit", "remember", "render", "keep", "route", "generate")


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with running_collector() as collector:
        yield collector


def parent_of(told: Told) -> bytes:
    return bytes(told.span.parent_span_id)


async def test_one_trace_leads_from_the_caller_to_the_engine(collector: Collector) -> None:
    caller = TracerProvider().get_tracer("caller")
    async with (
        running_gateway(otlp_endpoint=collector.address, trace_ratio=0) as endpoint,
        Client(endpoint.address, endpoint.key) as client,
    ):
        with caller.start_as_current_span("caller") as span:
            answer = await client.generate(f"say {SECRET}", max_tokens=9)
    turn, generate, engine = (collector.one(name) for name in ("turn", "generate", "engine"))
    context = span.get_span_context()
    assert {bytes(told.span.trace_id) for told in collector.spans} == {context.trace_id.to_bytes(16)}
    assert parent_of(turn) == context.span_id.to_bytes(8)
    for name in STAGES:
        assert parent_of(collector.one(name)) == turn.span.span_id, name
    assert parent_of(engine) == generate.span.span_id
    for name in ("queue", "prefill", "decode"):
        assert parent_of(collector.one(name)) == engine.span.span_id, name
    assert turn.events == ["first token"]
    assert turn.attributes["headrace.turn"] == answer.turn == engine.attributes["headrace.turn"]
    assert turn.attributes["headrace.outcome"] == "completed"
    for told in (turn, engine):
        assert told.attributes["gen_ai.usage.input_tokens"] == answer.usage.prompt_tokens
        assert told.attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens == 9
    assert collector.one("decode").attributes["headrace.tokens"] == 9


async def test_nothing_of_what_was_said_is_in_a_trace_and_no_attribute_is_long(collector: Collector) -> None:
    async with running_gateway(otlp_endpoint=collector.address, trace_ratio=1) as endpoint:
        events = await endpoint.stream(ask(f"say {SECRET}", max_tokens=20))
        with pytest.raises(grpc.aio.AioRpcError):
            await endpoint.stream(ask(f"say {SECRET}", max_tokens=0, stop=[SECRET]))
    said = "".join(event.delta.text for event in events)
    assert collector.spans and SECRET.encode() not in collector.bytes and said.encode() not in collector.bytes
    assert endpoint.key.encode() not in collector.bytes
    for told in collector.spans:
        assert all(len(str(value)) <= MAX_VALUE for value in told.attributes.values())
        assert len(told.attributes) <= 32


async def test_a_refused_call_leaves_a_span_that_says_how(collector: Collector) -> None:
    async with running_gateway(otlp_endpoint=collector.address, trace_ratio=1) as endpoint:
        with pytest.raises(grpc.aio.AioRpcError):
            await endpoint.stream(ask(max_tokens=0))
    turn = collector.one("turn")
    assert turn.attributes["error.type"] == "invalid"
    assert turn.span.status.code == turn.span.status.STATUS_CODE_ERROR
    assert turn.span.status.message == ""


async def test_the_caller_decides_and_the_ratio_where_it_does_not(collector: Collector) -> None:
    async with running_gateway(otlp_endpoint=collector.address, trace_ratio=0) as endpoint:
        for header in (None, "nonsense", PARENT.removesuffix("1") + "0"):
            sent = () if header is None else (("traceparent", header),)
            call = endpoint.inference.StreamGenerate(ask(max_tokens=2), metadata=endpoint.auth + sent)
            await rest(call)
        assert endpoint.deps.turns.all() == []
        sent = (("traceparent", PARENT),)
        await rest(endpoint.inference.StreamGenerate(ask(max_tokens=2), metadata=endpoint.auth + sent))
    assert collector.one("turn").span.trace_id.hex() == "ab" * 16


async def test_a_migration_is_an_event_and_both_engines_are_in_the_trace(collector: Collector) -> None:
    async with running_gateway(
        replicas=2, sim=SLOW, otlp_endpoint=collector.address, trace_ratio=1
    ) as endpoint:
        await lost_after(endpoint, ask("go on", max_tokens=TOKENS), 2, "killed")
    turn, engines = collector.one("turn"), collector.named("engine")
    assert "migration" in turn.events
    replicas = {told.attributes["headrace.replica"] for told in engines}
    assert (
        replicas
        == {"sim-0", "sim-1"}
        == {t.attributes["headrace.replica"] for t in collector.named("generate")}
    )
    assert {bytes(told.span.trace_id) for told in engines} == {bytes(turn.span.trace_id)}


async def test_a_turn_taken_over_and_its_reader_point_at_where_it_began(collector: Collector) -> None:
    sent = (("traceparent", PARENT),)
    traced = {"otlp_endpoint": collector.address, "trace_ratio": 1}
    async with running_gateways(2, **traced) as [one, two]:
        await two.until_it_judges()
        metadata = one.endpoint.auth + sent
        call = one.endpoint.inference.StreamGenerate(ask("go on", max_tokens=TOKENS), metadata=metadata)
        before = await first(call, 5)
        await one.die()
        await rest(resumed(two, before))
        await rest(resumed(two, before))  # by now it is there
    [turn] = [told for told in collector.named("turn") if "takeover" in told.events]
    [link] = turn.span.links
    assert link.trace_id.hex() == "ab" * 16 and turn.span.trace_id.hex() != "ab" * 16
    links = {link.trace_id.hex() for told in collector.named("resume") for link in told.span.links}
    assert links and links <= {"ab" * 16, turn.span.trace_id.hex()}


async def test_a_collector_that_is_away_hurts_no_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"  # connects, and hears nothing
        async with running_gateway(otlp_endpoint=address, trace_ratio=1) as endpoint:
            for _ in range(20):
                async with asyncio.timeout(EXPORT_S):  # a turn that waited for an export would take longer
                    events = await endpoint.stream(ask(max_tokens=5))
                assert events[-1].HasField("finished")


async def test_without_a_collector_nothing_is_recorded_or_sent_to_the_engine() -> None:
    async with running_gateway() as endpoint:
        sent = (("traceparent", PARENT),)
        call = endpoint.inference.StreamGenerate(ask(max_tokens=2), metadata=endpoint.auth + sent)
        begun = await call.read()
        turn = endpoint.deps.turns.find(begun.started.turn, "acme")
        assert turn is not None and turn.trace.header == "" and dict(turn.trace.ids) == {}
    assert isinstance(begun, pb.StreamEvent) and begun.started.model == MODEL
    assert not trace.get_current_span().is_recording()
