"""A session in its turns: one writer at a time, a history that outgrows the context, and what durable means."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import sessions_pb2
from services.core.clock import RandomIds, SystemClock
from services.gateway.app import Stores
from services.journal.redis import RedisJournalStore
from services.sessions.redis import RedisSessionStore
from services.store.cipher import Plain
from services.store.connect import connect
from tests.integration.test_generate import text_of
from tests.support.gateway import Endpoint, ask, memory_stores, running_gateway, until, user
from tests.support.gateways import first, rest
from tests.support.valkey import running_pair

SLOW = SimSettings(timing=SimTiming(step_s=0.004, scale=1), context_length=2048, vocab_size=49152)
SMALL = SimSettings(timing=SimTiming(scale=0), context_length=400, vocab_size=49152)


async def new_session(endpoint: Endpoint, *messages: pb.Message) -> str:
    request = sessions_pb2.CreateSessionRequest(messages=messages)
    return str((await endpoint.sessions.Create(request, metadata=endpoint.auth)).id)


async def said_in(endpoint: Endpoint, session: str) -> list[str]:
    request = sessions_pb2.GetSessionRequest(id=session)
    reply = await endpoint.sessions.Get(request, metadata=endpoint.auth)
    return [message.content[0].text for message in reply.messages]


async def test_a_second_turn_is_aborted_while_one_writes() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        session = await new_session(endpoint)
        call = endpoint.inference.StreamGenerate(
            ask("one", session=session, max_tokens=200), metadata=endpoint.auth
        )
        before = await first(call)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(ask("two", session=session, max_tokens=5))
        assert refusal.value.code() is grpc.StatusCode.ABORTED
        answer = text_of([*before, *await rest(call)])
        assert await said_in(endpoint, session) == ["one", answer]


async def test_turns_that_queue_are_all_in_the_session_in_the_order_in_which_they_came() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        session = await new_session(endpoint)
        calls = []
        for i in range(4):
            request = ask(f"turn {i}", session=session, max_tokens=150, session_busy=pb.SESSION_BUSY_QUEUE)
            calls.append(asyncio.create_task(endpoint.stream(request)))
            await until(lambda i=i: in_line(endpoint, session) == i)  # type: ignore[misc]
        streams = await asyncio.gather(*calls)
        said = await said_in(endpoint, session)
        assert said[::2] == [f"turn {i}" for i in range(4)] and said[1::2] == [text_of(s) for s in streams]
        assert [s[-1].finished.session_version for s in streams] == [2, 3, 4, 5]


async def test_a_turn_about_another_version_than_the_caller_saw_is_aborted() -> None:
    async with running_gateway() as endpoint:
        session = await new_session(endpoint)
        await endpoint.stream(ask("one", session=session, max_tokens=5, session_version=1))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(ask("two", session=session, max_tokens=5, session_version=1))
        assert refusal.value.code() is grpc.StatusCode.ABORTED and "version 2" in str(refusal.value.details())
        assert (await endpoint.stream(ask("two", session=session, max_tokens=5, session_version=2)))[
            -1
        ].finished


async def test_a_turn_that_ends_lets_the_session_go() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        session = await new_session(endpoint)
        request = ask("one", session=session, max_tokens=1500, linger_seconds=0)
        call = endpoint.inference.StreamGenerate(request, metadata=endpoint.auth)
        await first(call)
        call.cancel()
        await until(lambda: not len(endpoint.deps.turns))
        assert (await endpoint.stream(ask("two", session=session, max_tokens=5)))[-1].HasField("finished")


def in_line(endpoint: Endpoint, session: str) -> int:
    """Turns that wait for the session; -1 while none holds it."""
    kept = endpoint.stores.sessions._tenants["acme"][session]  # type: ignore[attr-defined]
    return len(kept.waiting) if kept.writer else -1


def long_history() -> Iterator[pb.Message]:
    yield pb.Message(role=pb.ROLE_SYSTEM, content=[pb.Part(text="be brief")])
    for i in range(12):
        yield user(f"question {i}: " + "word " * 25)
        yield pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.Part(text=f"answer {i}: " + "word " * 10)])


@pytest.mark.parametrize("policy", [pb.CONTEXT_POLICY_DROP_OLDEST, pb.CONTEXT_POLICY_SUMMARIZE])
async def test_a_history_that_outgrew_the_context_is_shown_in_part_and_kept_whole(policy: Any) -> None:
    async with running_gateway(sim=SMALL) as endpoint:
        session = await new_session(endpoint, *long_history())
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.stream(ask("and now?", session=session, max_tokens=20))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        request = ask("and now?", session=session, max_tokens=20, context_policy=policy)
        events = await endpoint.stream(request)
        started = events[0].started
        assert 0 < started.messages_dropped < 24 and started.prompt_tokens <= 380
        assert len(await said_in(endpoint, session)) == 25 + 2
        reply = await endpoint.inference.Generate(request, metadata=endpoint.auth)
        assert reply.messages_dropped >= started.messages_dropped
        kept = await endpoint.stores.sessions.get("acme", session)
        assert (kept.summary is not None) == (policy == pb.CONTEXT_POLICY_SUMMARIZE)


def stores_on(url: str) -> Stores:
    client = connect(url, timeout=1)
    return replace(
        memory_stores(),
        journals=RedisJournalStore(client, lambda tenant, turn: Plain()),
        sessions=RedisSessionStore(client, SystemClock(), RandomIds()),
    )


async def test_a_durable_turn_says_whether_a_replica_of_the_store_has_it() -> None:
    async with running_pair() as pair, running_gateway(stores=stores_on(pair.primary.url)) as endpoint:
        session = await new_session(endpoint)
        request = ask("hello", max_tokens=5, durable=True, session=session)
        events = await endpoint.stream(request)
        assert events[-1].finished.durability == pb.DURABILITY_CONFIRMED
        plain = await endpoint.stream(ask("hello", max_tokens=5))
        assert plain[-1].finished.durability == pb.DURABILITY_UNSPECIFIED
        pair.replica.stop()
        reply = await endpoint.inference.Generate(request, metadata=endpoint.auth)
        assert reply.durability == pb.DURABILITY_UNCONFIRMED and reply.session_version == 3


async def test_copies_of_a_session_turn_with_one_key_are_one_turn() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        session = await new_session(endpoint)
        request = ask("one", session=session, max_tokens=60, idempotency_key="k")
        streams = await asyncio.gather(*(endpoint.stream(request) for _ in range(20)))
        assert len({events[0].started.turn for events in streams}) == 1
        assert await said_in(endpoint, session) == ["one", text_of(streams[0])]
