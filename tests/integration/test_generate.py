"""Turns through a whole gateway against the simulated engine, whose tokens are known in advance."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tokenizers import Tokenizer

from cluster.engine.sim import SimSettings, SimTiming, expected_tokens
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import sessions_pb2
from tests.support.gateway import CHECKPOINT, FAST, MODEL, Endpoint, ask, running_gateway, until, user

TOKENIZER = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
SLOW = SimTiming(step_s=0.005, scale=1)


def answer_of(endpoint: Endpoint, request: pb.GenerateRequest, tokens: int) -> str:
    """What the oracle says the model answers."""
    from services.core.request import Conversation
    from services.gateway.validate import read_messages

    prompt = endpoint.deps.models[MODEL].family.prompt(Conversation(read_messages(request.messages)))
    return TOKENIZER.decode(expected_tokens(prompt, tokens))


def retry_after(error: grpc.aio.AioRpcError) -> float:
    """Seconds of the status's RetryInfo."""
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(packed).details)
    return info.retry_delay.ToMilliseconds() / 1000


def text_of(events: list[pb.StreamEvent]) -> str:
    return "".join(event.delta.text for event in events)


async def test_a_stream_is_the_oracles_answer_in_numbered_events() -> None:
    async with running_gateway() as endpoint:
        request = ask("count to ten", max_tokens=60)
        events = await endpoint.stream(request)
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds[0] == "started" and kinds[-2:] == ["usage", "finished"]
        assert set(kinds[1:-2]) == {"delta"}
        assert text_of(events) == answer_of(endpoint, request, 60)
        assert [e.seq for e in events] == sorted({e.seq for e in events})
        assert sum(e.delta.tokens for e in events) == events[-2].usage.completion_tokens == 60
        assert events[-1].finished.reason == pb.FINISH_REASON_LENGTH


async def test_unary_returns_what_the_stream_streams() -> None:
    async with running_gateway() as endpoint:
        request = ask("again", max_tokens=40)
        whole = await endpoint.inference.Generate(request, metadata=endpoint.auth)
        events = await endpoint.stream(request)
        assert whole.message.content[0].text == text_of(events)
        assert whole.finish_reason == pb.FINISH_REASON_LENGTH
        assert whole.usage.completion_tokens == events[-2].usage.completion_tokens
        assert whole.turn.startswith("turn_") and whole.model == MODEL


async def test_many_streams_at_once_each_get_their_own_answer() -> None:
    async with running_gateway(replicas=2) as endpoint:
        requests = [ask(f"question {i}", max_tokens=50) for i in range(64)]
        streams = await asyncio.gather(*(endpoint.stream(request) for request in requests))
        for request, events in zip(requests, streams, strict=True):
            assert text_of(events) == answer_of(endpoint, request, 50)


async def test_a_stop_string_ends_the_turn_and_is_not_delivered() -> None:
    async with running_gateway() as endpoint:
        full = answer_of(endpoint, ask("stop me"), 60)
        stop = full[40:46]
        events = await endpoint.stream(ask("stop me", max_tokens=60, stop=["never-there", stop]))
        assert text_of(events) == full[: full.index(stop)]
        assert events[-1].finished.reason == pb.FINISH_REASON_STOP_SEQUENCE
        assert events[-1].finished.stop_sequence == stop
        replica = endpoint.replicas[0]
        await until(lambda: replica.engine.load().running == 0)


async def test_a_client_that_cancels_frees_the_engine() -> None:
    sim = SimSettings(timing=SLOW, context_length=2048, vocab_size=49152)
    async with running_gateway(sim=sim) as endpoint:
        call = endpoint.inference.StreamGenerate(
            ask(max_tokens=1500, linger_seconds=0), metadata=endpoint.auth
        )
        async for event in call:
            if event.WhichOneof("event") == "delta":
                break
        call.cancel()
        await until(lambda: endpoint.replicas[0].engine.load().running == 0)
        await until(lambda: endpoint.deps.admission.held == 0)
        assert len(endpoint.deps.tasks) == 2  # the link's and the recorder's


async def test_a_deadline_frees_the_engine() -> None:
    sim = SimSettings(timing=SLOW, context_length=2048, vocab_size=49152)
    async with running_gateway(sim=sim) as endpoint:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.Generate(ask(max_tokens=1500), metadata=endpoint.auth, timeout=0.2)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: endpoint.replicas[0].engine.load().running == 0)
        await until(lambda: endpoint.deps.admission.held == 0)


async def test_the_gateways_own_deadline_ends_a_turn_with_an_error_event() -> None:
    sim = SimSettings(timing=SLOW, context_length=2048, vocab_size=49152)
    async with running_gateway(sim=sim, max_turn_seconds=0.2) as endpoint:
        events = []
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async for event in endpoint.inference.StreamGenerate(
                ask(max_tokens=1500), metadata=endpoint.auth
            ):
                events.append(event)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert [e.WhichOneof("event") for e in events[-2:]] == ["usage", "error"]
        assert events[-1].error.outcome == "DEADLINE"


async def test_a_session_carries_the_conversation() -> None:
    async with running_gateway() as endpoint:
        session = await endpoint.sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=endpoint.auth)
        first = await endpoint.inference.Generate(
            ask("my name is Ada", session=session.id, max_tokens=10), metadata=endpoint.auth
        )
        assert first.session_version == session.version + 1
        events = await endpoint.stream(ask("who am I?", session=session.id, max_tokens=10))
        reply = pb.Message(role=pb.ROLE_ASSISTANT, content=first.message.content)
        resent = pb.GenerateRequest(messages=[user("my name is Ada"), reply, user("who am I?")])
        assert text_of(events) == answer_of(endpoint, resent, 10)
        kept = await endpoint.sessions.Get(
            sessions_pb2.GetSessionRequest(id=session.id), metadata=endpoint.auth
        )
        assert len(kept.messages) == 4 and kept.version == events[-1].finished.session_version


async def test_a_turn_that_loses_its_replica_after_its_first_token_says_so() -> None:
    sim = SimSettings(timing=SLOW, context_length=2048, vocab_size=49152)
    async with running_gateway(sim=sim, recovery=0) as endpoint:
        call = endpoint.inference.StreamGenerate(ask(max_tokens=1500), metadata=endpoint.auth)
        events = []
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async for event in call:
                events.append(event)
                if event.WhichOneof("event") == "delta":
                    await endpoint.replicas[0].server.stop(0)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert events[-1].error.outcome == "ENGINE_LOST" and events[-1].error.retry_after_ms > 0
        assert endpoint.deps.admission.held == 0


async def test_a_full_gateway_refuses_with_a_delay() -> None:
    sim = SimSettings(timing=SLOW, context_length=2048, vocab_size=49152)
    async with running_gateway(sim=sim, max_turns=1) as endpoint:
        running = endpoint.inference.StreamGenerate(ask(max_tokens=1500), metadata=endpoint.auth)
        await running.read()
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.Generate(ask(max_tokens=5), metadata=endpoint.auth)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_after(refusal.value) == 1.0
        running.cancel()


async def test_without_a_replica_the_turn_is_refused_as_unavailable() -> None:
    async with running_gateway(replicas=0) as endpoint:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.Generate(ask(max_tokens=5), metadata=endpoint.auth)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "no replica" in (refusal.value.details() or "")


async def test_the_usage_of_a_repeated_prompt_counts_cached_tokens_of_this_tenant_only() -> None:
    from tests.support.gateway import mint_key

    async with running_gateway(
        sim=SimSettings(timing=FAST, context_length=2048, vocab_size=49152)
    ) as endpoint:
        request = ask("word " * 200, max_tokens=5)
        first = await endpoint.inference.Generate(request, metadata=endpoint.auth)
        second = await endpoint.inference.Generate(request, metadata=endpoint.auth)
        endpoint.key = await mint_key(endpoint.stores, "other")
        foreign = await endpoint.inference.Generate(request, metadata=endpoint.auth)
        assert first.usage.cached_tokens == foreign.usage.cached_tokens == 0
        assert second.usage.cached_tokens > 0


async def test_a_reader_that_does_not_read_is_ended_and_gives_back_its_slot() -> None:
    sim = SimSettings(timing=FAST, context_length=32_000, vocab_size=49152)
    async with running_gateway(sim=sim, max_turn_seconds=0.3) as endpoint:
        calls = [
            endpoint.inference.StreamGenerate(ask(f"{i}", max_tokens=1900), metadata=endpoint.auth)
            for i in range(40)
        ]
        await asyncio.gather(*(call.read() for call in calls))
        await until(lambda: endpoint.deps.admission.held == 0)
        for call in calls:
            call.cancel()


async def test_the_only_replica_that_dies_before_the_first_token_is_not_called_full() -> None:
    async with running_gateway() as endpoint:
        endpoint.replicas[0].engine.fail_after_steps = 0
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.Generate(ask(max_tokens=5), metadata=endpoint.auth)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_replica_that_took_over_an_address_is_not_believed() -> None:
    async with running_gateway(replicas=2) as endpoint:
        one, other = endpoint.replicas
        await one.server.stop(0)
        await other.server.stop(0)
        await until(lambda: not any(link.ready for link in endpoint.deps.directory.links()))
        await other.server.start("127.0.0.1", int(one.lease.address.rpartition(":")[2]))
        link = endpoint.deps.directory.links()[0]
        assert (await link.serve()).startswith("another replica answers")
        assert not link.ready
