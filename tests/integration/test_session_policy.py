"""What a turn does when its session is too long for the context, and when another turn is writing to it."""

import asyncio
from typing import Any

import grpc
import pytest

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import sessions_pb2
from services.gateway.context import HEADING
from tests.integration.test_turns import until_state
from tests.support.gateway import Endpoint, ask, running_gateway, until, user
from tests.support.gateways import first, running_gateways

CONTEXT = 2048
SYSTEM = "Always answer in English."


def answered(text: str) -> pb.Message:
    return pb.Message(role=pb.ROLE_ASSISTANT, content=[pb.Part(text=text)])


async def long_session(endpoint: Endpoint, turns: int = 12) -> Any:
    """About 200 tokens a turn, so that ten of them do not fit."""
    messages = [
        message
        for n in range(turns)
        for message in (user(f"question {n} " + "word " * 100), answered(f"answer {n} " + "word " * 90))
    ]
    request = sessions_pb2.CreateSessionRequest(system=SYSTEM, messages=messages)
    return await endpoint.sessions.Create(request, metadata=endpoint.auth)


async def generated(endpoint: Endpoint, session: str, policy: Any, **fields: Any) -> Any:
    request = ask("and now?", session=session, context_policy=policy, **{"max_tokens": 40} | fields)
    return await endpoint.inference.Generate(request, metadata=endpoint.auth)


async def kept(endpoint: Endpoint, session: str) -> Any:
    return await endpoint.sessions.Get(sessions_pb2.GetSessionRequest(id=session), metadata=endpoint.auth)


async def test_a_history_over_the_context_is_refused_unless_the_caller_says_otherwise() -> None:
    async with running_gateway() as endpoint:
        session = await long_session(endpoint)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await generated(endpoint, session.id, pb.CONTEXT_POLICY_REFUSE)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert str(CONTEXT) in (refusal.value.details() or "")


async def test_the_oldest_turns_are_left_out_of_the_prompt_and_stay_in_the_session() -> None:
    async with running_gateway() as endpoint:
        session = await long_session(endpoint)
        reply = await generated(endpoint, session.id, pb.CONTEXT_POLICY_DROP_OLDEST)
        assert reply.messages_dropped > 0 and reply.messages_dropped % 2 == 0
        assert CONTEXT - 40 - 250 < reply.usage.prompt_tokens <= CONTEXT - 40
        assert len((await kept(endpoint, session.id)).messages) == len(session.messages) + 2
        again = await generated(endpoint, session.id, pb.CONTEXT_POLICY_DROP_OLDEST)
        assert again.messages_dropped >= reply.messages_dropped


async def test_the_model_sums_up_what_is_left_out_and_is_asked_once() -> None:
    async with running_gateway() as endpoint:
        session = await long_session(endpoint)
        reply = await generated(endpoint, session.id, pb.CONTEXT_POLICY_SUMMARIZE)
        summary = (await kept(endpoint, session.id)).summary
        assert summary.text and summary.message_count == reply.messages_dropped + 1
        assert reply.usage.prompt_tokens <= CONTEXT - 40
        again = await generated(endpoint, session.id, pb.CONTEXT_POLICY_SUMMARIZE)
        assert (await kept(endpoint, session.id)).summary == summary
        assert again.messages_dropped == reply.messages_dropped
        assert HEADING not in str((await kept(endpoint, session.id)).messages)


async def test_a_turn_that_fits_drops_nothing_under_any_policy() -> None:
    async with running_gateway() as endpoint:
        session = await long_session(endpoint, 2)
        for policy in (pb.CONTEXT_POLICY_DROP_OLDEST, pb.CONTEXT_POLICY_SUMMARIZE):
            reply = await generated(endpoint, session.id, policy)
            assert reply.messages_dropped == 0
        assert not (await kept(endpoint, session.id)).HasField("summary")


async def test_new_messages_over_the_context_are_refused_under_any_policy() -> None:
    async with running_gateway() as endpoint:
        session = await long_session(endpoint, 2)
        for policy in (pb.CONTEXT_POLICY_DROP_OLDEST, pb.CONTEXT_POLICY_SUMMARIZE):
            request = ask("word " * 3000, session=session.id, context_policy=policy)
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await endpoint.inference.Generate(request, metadata=endpoint.auth)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


UNHURRIED = SimSettings(timing=SimTiming(step_s=0.004, scale=1), context_length=CONTEXT, vocab_size=49152)
SLOW = SimSettings(timing=SimTiming(), context_length=CONTEXT, vocab_size=49152)


async def test_a_second_turn_is_aborted_or_waits_as_its_caller_chose() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        session = await endpoint.sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=endpoint.auth)
        first = asyncio.create_task(endpoint.stream(ask("one", session=session.id, max_tokens=60)))
        await until(lambda: endpoint.replicas[0].engine.load().running == 1)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await endpoint.inference.Generate(ask("two", session=session.id), metadata=endpoint.auth)
        assert refusal.value.code() is grpc.StatusCode.ABORTED and not first.done()
        queued = [
            ask(f"queued {n}", session=session.id, max_tokens=4, session_busy=pb.SESSION_BUSY_QUEUE)
            for n in range(3)
        ]
        replies = await asyncio.gather(
            *(endpoint.inference.Generate(each, metadata=endpoint.auth) for each in queued)
        )
        assert (await first)[-1].finished.session_version == 2
        assert sorted(reply.session_version for reply in replies) == [3, 4, 5]


async def test_a_cancelled_turn_lets_the_next_one_write() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        session = await endpoint.sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=endpoint.auth)
        request = ask("one", session=session.id, max_tokens=2000, linger_seconds=0)
        first = asyncio.create_task(endpoint.stream(request))
        await until(lambda: endpoint.replicas[0].engine.load().running == 1)
        first.cancel()
        queued = ask("two", session=session.id, max_tokens=2, session_busy=pb.SESSION_BUSY_QUEUE)
        reply = await endpoint.inference.Generate(queued, metadata=endpoint.auth)
        assert reply.session_version == 2


@pytest.mark.parametrize("policy", [pb.CONTEXT_POLICY_DROP_OLDEST, pb.CONTEXT_POLICY_SUMMARIZE])
async def test_a_turn_that_changes_hands_keeps_its_prompt_and_its_session(policy: Any) -> None:
    """Its twin runs on a fork, and nothing happens to that one."""
    async with running_gateways(2, sim=UNHURRIED) as [one, two]:
        await two.until_it_judges()
        # A replica that was not asked how it is for 2 s counts as silent, and the twin takes longer.
        two.endpoint.deps.tasks.start(two.endpoint.deps.directory.watch(), "directory")
        session = await long_session(one.endpoint)
        forking = sessions_pb2.ForkSessionRequest(id=session.id)
        fork = await one.endpoint.sessions.Fork(forking, metadata=one.endpoint.auth)
        twin = await generated(one.endpoint, fork.id, policy, max_tokens=100)
        request = ask("and now?", session=session.id, context_policy=policy, max_tokens=100)
        call = one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth)
        started = (await first(call, 20))[0].started
        assert (started.prompt_tokens, started.messages_dropped) == (
            twin.usage.prompt_tokens,
            twin.messages_dropped,
        )
        await one.die()
        done = (await until_state(two.endpoint, started.turn, pb.Turn.FINISHED)).answer
        assert (done.message, done.messages_dropped) == (twin.message, twin.messages_dropped)
        assert done.usage.takeovers == 1 and done.session_version == 2
        after = await generated(two.endpoint, session.id, policy)  # the session is free again
        assert after.session_version == 3
