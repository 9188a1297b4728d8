"""A turn whose replica is lost goes on elsewhere, token by token as if nothing had happened."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.backend.link import STALE
from services.telemetry.metrics import MIGRATIONS
from services.text.harmony.vocabulary import encoding
from tests.integration.test_generate import answer_of, text_of
from tests.integration.test_resume import joined, resumed
from tests.support.gateway import MODEL, Endpoint, SimReplica, ask, memory_stores, running_gateway, until
from tests.support.gateways import rest, running_gateways
from tests.support.scripted_engine import ScriptedEngine, ids_of

SLOW = SimSettings(timing=SimTiming(step_s=0.002, scale=1), context_length=2048, vocab_size=49152)
TOKENS = 300


def holder(endpoint: Endpoint) -> SimReplica:
    """The replica that runs a turn."""
    living = (replica for replica in endpoint.replicas if not replica.board.dead.is_set())
    [busy] = [replica for replica in living if replica.engine.load().running]
    return busy


async def lost_after(
    endpoint: Endpoint, request: pb.GenerateRequest, deltas: int, how: str
) -> list[pb.StreamEvent]:
    """The events of a turn whose replica is lost after so many deltas."""
    events = []
    async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
        events.append(event)
        if sum(e.HasField("delta") for e in events) == deltas and event.HasField("delta"):
            await lose(holder(endpoint), how)
    return events


async def lose(replica: SimReplica, how: str) -> None:
    if how == "killed":
        replica.engine.fail_after_steps = replica.engine.load().steps + 1  # the next one
    elif how == "cut off":
        await replica.server.stop(0)
    else:
        await replica.server.drain(0)


@pytest.mark.parametrize("how", ["killed", "cut off", "drained"])
@pytest.mark.parametrize("deltas", [1, 2, 50])
async def test_the_answer_is_the_oracles_and_the_caller_sees_a_counter_only(how: str, deltas: int) -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateway(replicas=2, sim=SLOW) as endpoint:
        async with asyncio.timeout(30):
            events = await lost_after(endpoint, request, deltas, how)
        assert text_of(events) == answer_of(endpoint, request, TOKENS)
        assert sum(e.delta.tokens for e in events) <= TOKENS
        usage = events[-2].usage
        assert (usage.completion_tokens, usage.migrations) == (TOKENS, 1)
        assert events[-1].finished.reason == pb.FINISH_REASON_LENGTH
        assert [e.seq for e in events] == sorted({e.seq for e in events})


async def test_a_turn_moves_more_than_once() -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateway(replicas=3, sim=SLOW) as endpoint, asyncio.timeout(30):
        events, lost = [], 0
        async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
            events.append(event)
            if event.HasField("delta") and lost < 2 and sum(e.delta.tokens for e in events) > 60 * (lost + 1):
                await lose(holder(endpoint), "killed")
                lost += 1
        assert text_of(events) == answer_of(endpoint, request, TOKENS)
        assert events[-2].usage.migrations == 2


async def test_a_turn_waits_for_a_replica_that_comes_back() -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateway(sim=SLOW) as endpoint, asyncio.timeout(30):
        [replica] = endpoint.replicas
        events = []
        async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
            events.append(event)
            if event.HasField("delta") and sum(e.HasField("delta") for e in events) == 5:
                await replica.server.stop(0)
                await until(lambda: not endpoint.deps.directory.links()[0].ready)
                await replica.server.start("127.0.0.1", int(replica.lease.address.rpartition(":")[2]))
        assert text_of(events) == answer_of(endpoint, request, TOKENS)


async def test_many_turns_lose_a_replica_at_once_and_none_of_them_a_token() -> None:
    before = MIGRATIONS.labels(MODEL, "engine")._value.get()
    async with running_gateway(replicas=2, sim=SLOW) as endpoint, asyncio.timeout(60):
        requests = [ask(f"turn {i}", max_tokens=TOKENS) for i in range(40)]
        streams = [asyncio.create_task(endpoint.stream(request)) for request in requests]
        await until(lambda: all(r.engine.load().running == 20 for r in endpoint.replicas))
        await lose(endpoint.replicas[0], "killed")
        answers = await asyncio.gather(*streams)
        for request, events in zip(requests, answers, strict=True):
            assert text_of(events) == answer_of(endpoint, request, TOKENS)
    moved = MIGRATIONS.labels(MODEL, "engine")._value.get() - before
    assert 0 < moved <= 20 and moved == sum(events[-2].usage.migrations for events in answers)


async def test_a_silent_replica_is_left_within_seconds() -> None:
    """Its process hangs: the connection stands and nothing is said on it."""
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateway(replicas=2, sim=SLOW) as endpoint, asyncio.timeout(30):
        watch = endpoint.deps.tasks.start(endpoint.deps.directory.watch(), "directory")
        events = []
        async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
            events.append(event)
            if event.HasField("delta") and sum(e.HasField("delta") for e in events) == 5:
                hung = holder(endpoint)
                hung.engine.hang = True
                [link] = [k for k in endpoint.deps.directory.links() if k.lease.replica == hung.lease.replica]
                link._loaded = lambda load: None  # type: ignore[method-assign]
                silent_from = time.monotonic()
        assert STALE - 1 < time.monotonic() - silent_from < STALE + 5
        assert text_of(events) == answer_of(endpoint, request, TOKENS)
        watch.cancel()
        hung.engine.resume()


JSON = pb.ResponseFormat(json_schema=pb.JsonSchema(schema='{"type":"object"}'))
FORMATTED = "<|channel|>final <|constrain|>json<|message|>"


async def come_back(endpoint: Endpoint) -> None:
    """The only replica is lost, and found again."""
    [replica] = endpoint.replicas
    await replica.server.stop(0)
    await until(lambda: not endpoint.deps.directory.links()[0].ready)
    await replica.server.start("127.0.0.1", int(replica.lease.address.rpartition(":")[2]))


def goes_on_after(engine: ScriptedEngine) -> list[int]:
    """The ids that the second order continues, in the grammar of the first."""
    first, second = engine.requests
    ids = second.prompt[len(first.prompt) :]
    assert second.prompt[: len(first.prompt)] == first.prompt
    assert (second.continued, second.structural_tag) == (len(ids), first.structural_tag)
    assert second.max_tokens == first.max_tokens - len(ids)
    assert first.continued == 0 and first.structural_tag
    return ids


async def test_an_answer_held_to_a_format_goes_on_in_the_middle_of_a_value() -> None:
    begun, rest = FORMATTED + '{"a": "' + "la " * 20_000, '!"}'
    engine = ScriptedEngine([begun, rest + "<|return|>"])
    async with running_gateway(model="gpt-oss-tiny", engine=engine) as endpoint, asyncio.timeout(30):
        request, events = ask(response_format=JSON, max_tokens=100_000), list[pb.StreamEvent]()
        async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
            events.append(event)
            if event.HasField("delta") and sum(e.HasField("delta") for e in events) == 3:
                await come_back(endpoint)
    continued = goes_on_after(engine)
    said = encoding().decode(continued).removeprefix(FORMATTED)
    assert text_of(events) == said + rest
    assert events[-2].usage.migrations == 1
    assert events[-2].usage.completion_tokens == len(continued) + len(ids_of(rest))


async def test_an_answer_held_to_a_format_that_nobody_saw_goes_on_as_well() -> None:
    thinking = "<|channel|>analysis<|message|>" + "hm " * 5000
    rest = "<|end|><|start|>assistant" + FORMATTED + '{"a": 1}'
    engine = ScriptedEngine([thinking, rest + "<|return|>"])
    async with running_gateway(model="gpt-oss-tiny", engine=engine) as endpoint, asyncio.timeout(30):
        turn = endpoint.inference.Generate(ask(response_format=JSON), metadata=endpoint.auth)
        await until(lambda: engine.load().steps > 20)
        await come_back(endpoint)
        reply = await turn
    assert reply.message.content[0].text == '{"a": 1}'
    continued = goes_on_after(engine)
    assert (reply.usage.migrations, reply.usage.completion_tokens) == (1, len(continued) + len(ids_of(rest)))


async def test_an_answer_held_to_a_format_goes_on_at_another_gateway() -> None:
    begun, rest_of_it = FORMATTED + '{"a": "' + "la " * 20_000, '!"}'
    engine = ScriptedEngine([begun, rest_of_it + "<|return|>"])
    request, stores, before = ask(response_format=JSON, max_tokens=100_000), memory_stores(), list[Any]()
    gateways = running_gateways(2, stores, model="gpt-oss-tiny", engine=engine)
    async with gateways as [one, two], asyncio.timeout(30):
        await two.until_it_judges()
        async for event in one.endpoint.inference.StreamGenerate(request, metadata=one.endpoint.auth):
            before.append(event)
            if await stores.journals.read(before[0].started.turn, "acme", 5):
                break
        await one.die()
        after = await rest(resumed(two, before))
    said = encoding().decode(goes_on_after(engine)).removeprefix(FORMATTED)
    assert joined(before, after) == said + rest_of_it
    assert next(e.usage for e in after if e.HasField("usage")).takeovers == 1


async def test_an_answer_that_the_next_engine_cannot_continue_ends_as_lost() -> None:
    engine = ScriptedEngine([FORMATTED + '{"a": "' + "la " * 20_000])
    async with running_gateway(model="gpt-oss-tiny", engine=engine) as endpoint, asyncio.timeout(30):
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            request = ask(response_format=JSON, max_tokens=100_000)
            async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
                if event.HasField("delta") and not engine.rejects:
                    engine.rejects = "structural_tag refuses the output that continued tells of"
                    await come_back(endpoint)
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_begun_turn_outwaits_a_replica_that_is_full() -> None:
    request = ask("go on", max_tokens=TOKENS)
    async with running_gateway(replicas=2, sim=SLOW, capacity=1) as endpoint, asyncio.timeout(30):
        other = asyncio.create_task(endpoint.stream(ask("in the way", max_tokens=600)))
        await until(lambda: any(replica.engine.load().running for replica in endpoint.replicas))
        events = []
        async for event in endpoint.inference.StreamGenerate(request, metadata=endpoint.auth):
            events.append(event)
            if event.HasField("delta") and sum(e.HasField("delta") for e in events) == 5:
                [mine] = [r for r in endpoint.replicas if r.engine._running and request_of(r) == TOKENS]
                await lose(mine, "killed")
        assert text_of(events) == answer_of(endpoint, request, TOKENS)
        await other


def request_of(replica: SimReplica) -> int:
    """max_tokens of the turn that the replica runs."""
    [turn] = replica.engine._running.values()
    return int(turn.request.max_tokens)


async def test_a_gateway_that_stood_still_does_not_blame_its_replicas() -> None:
    async with running_gateway(sim=SLOW) as endpoint:
        watch = endpoint.deps.tasks.start(endpoint.deps.directory.watch(), "directory")
        [link] = endpoint.deps.directory.links()
        await asyncio.sleep(0.1)
        time.sleep(STALE + 0.3)  # as a long collection or a stopped machine does
        heard = link.heard_at
        await until(lambda: link.heard_at > heard)
        assert (link.connections, link.ready) == (1, True)
        watch.cancel()
