"""The engine link over a real grpc.aio loopback channel, on the simulated engine."""

import asyncio

import grpc
import grpc.aio
import pytest

from cluster.engine.port import Cause
from cluster.engine.sim import SimTiming, expected_logprobs, expected_tokens
from cluster.link.outbox import MAX_LOGPROBS, Outbox
from cluster.link.v1 import link_pb2 as pb
from tests.support.engine_link import TOKEN, Gateway, Ledger, running_replica

PROMPT = [11, 12, 13]
# Slow enough that a turn of thousands of tokens outlives any test.
STEADY = SimTiming(step_s=0.001, scale=1.0)


def test_causes_are_those_of_the_contract() -> None:
    names = {f"FINISH_CAUSE_{cause.name}": cause.value for cause in Cause}
    assert names == {name: value for name, value in pb.FinishCause.items() if value}


async def test_many_turns_share_one_stream() -> None:
    async with running_replica() as replica, replica.gateway() as gateway:
        for id in range(1, 33):
            await gateway.submit(id, [id], 20)
        ledger = await gateway.finished(*range(1, 33))
    assert ledger.tokens == {id: expected_tokens([id], 20) for id in range(1, 33)}
    assert {finish.cause for finish in ledger.finishes.values()} == {pb.FINISH_CAUSE_LENGTH}
    assert ledger.firsts.keys() == ledger.tokens.keys()


async def test_gateways_with_equal_ids_do_not_meet() -> None:
    async with running_replica() as replica, replica.gateway() as one, replica.gateway() as two:
        await one.submit(1, [1], 30)
        await two.submit(1, [2], 30)
        assert (await one.finished(1)).tokens == {1: expected_tokens([1], 30)}
        assert (await two.finished(1)).tokens == {1: expected_tokens([2], 30)}


async def test_a_step_carries_the_load() -> None:
    async with running_replica(timing=STEADY) as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 5000)
        frame = await gateway.frame()
        assert (frame.step.load.running, frame.step.load.capacity) == (1, 64)
        await gateway.ping(7)
        ledger = await gateway.until(lambda ledger: ledger.frames[-1].HasField("pong"))
        assert ledger.frames[-1].pong.nonce == 7
        assert ledger.frames[-1].pong.load.steps >= 1


async def test_cancel_drops_the_turn_from_the_engine() -> None:
    async with running_replica(timing=STEADY) as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 5000)
        await gateway.until(lambda ledger: 1 in ledger.tokens)
        await gateway.cancel(1, 99)
        ledger = await gateway.finished(1)
        assert ledger.finishes[1].cause == pb.FINISH_CAUSE_CANCELLED
        assert replica.engine.load().running == 0


async def test_a_broken_stream_takes_its_turns_along() -> None:
    async with running_replica(timing=STEADY) as replica:
        async with replica.gateway() as gateway:
            for id in range(1, 9):
                await gateway.submit(id, PROMPT, 5000)
            await gateway.until(lambda ledger: len(ledger.tokens) == 8)
        await asyncio.wait_for(replica.board.idle(), 5)
        assert replica.engine.load().running == 0


async def test_a_full_replica_says_so() -> None:
    async with running_replica(capacity=2, timing=STEADY) as replica, replica.gateway() as gateway:
        for id in (1, 2, 3):
            await gateway.submit(id, PROMPT, 5000)
        ledger = await gateway.finished(3)
        assert ledger.finishes[3].cause == pb.FINISH_CAUSE_FULL
        await gateway.cancel(1)
        await gateway.finished(1)
        await gateway.submit(4, PROMPT, 2)
        assert (await gateway.finished(4)).finishes[4].cause == pb.FINISH_CAUSE_LENGTH


async def test_a_canary_takes_no_place() -> None:
    async with running_replica(capacity=1) as replica, replica.gateway() as gateway:
        replica.engine.hang = True
        probing = asyncio.create_task(replica.board.probe())
        await gateway.submit(1, PROMPT, 3)
        await gateway.ping(1)
        await gateway.until(lambda ledger: ledger.frames[-1].HasField("pong"))
        replica.engine.resume()
        ledger = await gateway.finished(1)
        await probing
    assert ledger.finishes[1].cause == pb.FINISH_CAUSE_LENGTH


@pytest.mark.parametrize(
    ("prompt", "fields", "named"),
    [
        ([], {}, "prompt"),
        ([200_000], {}, "prompt"),
        ([1] * 999, {"max_tokens": 2}, "context"),
        ([1], {"max_tokens": 0}, "max_tokens"),
        ([1], {"min_tokens": 11}, "min_tokens"),
        ([1], {"stop_ids": [2**32 - 1]}, "stop_ids"),
        ([1], {"stop_ids": range(65)}, "stop_ids"),
        ([1], {"cache_salt": "tenant-a"}, "cache_salt"),
        ([1, 2], {"continued": 3}, "continued"),
        ([1], {"structural_tag": "x" * 131_073}, "structural_tag"),
        ([1], {"structural_tag": "é" * 65_537}, "structural_tag"),
        ([1], {"logprobs": 21}, "logprobs"),
        ([1], {"sampling": pb.Sampling(temperature=float("nan"))}, "temperature"),
        ([1], {"sampling": pb.Sampling(top_p=0.0)}, "top_p"),
        ([1], {"sampling": pb.Sampling(repetition_penalty=float("inf"))}, "repetition_penalty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_malformed_submit_is_rejected_alone(
    prompt: list[int], fields: dict[str, object], named: str
) -> None:
    fields = {"max_tokens": 10} | fields
    async with running_replica(context_length=1000) as replica, replica.gateway() as gateway:
        await gateway.submit(1, prompt, **fields)  # type: ignore[arg-type]
        await gateway.submit(2, PROMPT, 3)
        ledger = await gateway.finished(1, 2)
    assert ledger.finishes[1].cause == pb.FINISH_CAUSE_REJECTED
    assert named in ledger.finishes[1].detail
    assert ledger.tokens == {2: expected_tokens(PROMPT, 3)}


async def test_a_used_id_is_rejected() -> None:
    async with running_replica() as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 1)
        ledger = await gateway.finished(1)
        del ledger.finishes[1]
        await gateway.submit(1, PROMPT, 1)
        assert (await gateway.finished(1)).finishes[1].cause == pb.FINISH_CAUSE_REJECTED


async def status_of(gateway: Gateway) -> grpc.StatusCode:
    with pytest.raises((EOFError, grpc.aio.AioRpcError)):
        await gateway.until(lambda ledger: False)
    return await gateway.call.code()


async def test_an_id_in_use_ends_the_stream() -> None:
    async with running_replica(timing=STEADY) as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 5000)
        await gateway.submit(1, PROMPT, 5000)
        assert await status_of(gateway) == grpc.StatusCode.INVALID_ARGUMENT
        assert replica.engine.load().running == 0


@pytest.mark.parametrize("token", ["", "wrong", "s3cret ", "sécret"])
async def test_a_wrong_token_is_refused(token: str) -> None:
    async with running_replica() as replica:
        gateway = Gateway(replica.address)
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.hello(token)
        assert await gateway.call.code() == grpc.StatusCode.UNAUTHENTICATED
        await gateway.close()


async def test_a_submit_without_hello_is_refused() -> None:
    async with running_replica() as replica:
        gateway = Gateway(replica.address)
        await gateway.submit(1, PROMPT, 1)
        assert await status_of(gateway) == grpc.StatusCode.UNAUTHENTICATED
        await gateway.close()


async def test_a_drain_lets_turns_end_and_takes_none() -> None:
    timing = SimTiming(step_s=0.001)
    async with running_replica(timing=timing) as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 50)
        await gateway.until(lambda ledger: 1 in ledger.tokens)
        drain = asyncio.create_task(replica.server.drain(30))
        await gateway.until(lambda ledger: ledger.frames[-1].HasField("draining"))
        await gateway.submit(2, PROMPT, 50)
        ledger = await gateway.finished(1, 2)
        await drain
    assert ledger.tokens[1] == expected_tokens(PROMPT, 50)
    assert ledger.finishes[1].cause == pb.FINISH_CAUSE_LENGTH
    assert ledger.finishes[2].cause == pb.FINISH_CAUSE_DRAINING


async def test_the_end_of_the_grace_is_told() -> None:
    async with running_replica(timing=STEADY) as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 5000)
        await gateway.until(lambda ledger: 1 in ledger.tokens)
        await replica.server.drain(0.01)
        assert (await gateway.finished(1)).finishes[1].cause == pb.FINISH_CAUSE_DRAINING


async def test_a_dead_engine_ends_every_turn_and_stream() -> None:
    async with running_replica() as replica, replica.gateway() as one, replica.gateway() as two:
        await one.submit(1, PROMPT, 90_000)
        await two.submit(5, PROMPT, 90_000)
        await one.until(lambda ledger: 1 in ledger.tokens)
        await two.until(lambda ledger: 5 in ledger.tokens)
        replica.engine.fail_after_steps = replica.engine.load().steps + 20
        for gateway, id in ((one, 1), (two, 5)):
            ledger = await gateway.finished(id)
            assert ledger.finishes[id].cause == pb.FINISH_CAUSE_ENGINE
            assert ledger.tokens[id] == expected_tokens(PROMPT, len(ledger.tokens[id]))
            assert await status_of(gateway) == grpc.StatusCode.UNAVAILABLE
        late = Gateway(replica.address)
        with pytest.raises(grpc.aio.AioRpcError, match="sim failed"):
            await late.hello()
        await late.close()


async def test_a_slow_reader_gets_merged_steps() -> None:
    async with running_replica() as replica, replica.gateway() as slow:
        await slow.submit(1, PROMPT, 90_000)
        async with replica.gateway() as quick:
            # While the slow stream is not read, the engine goes on for both.
            await quick.submit(1, [9], 80_000)
            await quick.finished(1)
        ledger = await slow.finished(1)
    assert ledger.tokens[1] == expected_tokens(PROMPT, 90_000)
    assert any(frame.step.counts for frame in ledger.frames)
    assert len(ledger.frames) < 90_000


async def test_pending_output_merges_by_turn() -> None:
    outbox = Outbox(pb.Load)
    for token in (1, 2, 3):
        outbox.token(7, token)
    outbox.token(8, 9)
    for nonce in range(1000):
        outbox.pong(nonce)
    step, pong = await outbox.frames()
    assert (step.step.ids, step.step.counts, step.step.tokens) == ([7, 8], [3, 1], [1, 2, 3, 9])
    assert pong.pong.nonce == 999


@pytest.mark.parametrize("likeliest", [0, 3, 20])
async def test_log_probabilities_come_with_the_tokens_of_those_who_asked(likeliest: int) -> None:
    async with running_replica() as replica, replica.gateway() as gateway:
        await gateway.submit(1, PROMPT, 40, logprobs=likeliest)
        await gateway.submit(2, [9], 40)
        ledger = await gateway.finished(1, 2)
    tokens = expected_tokens(PROMPT, 40)
    assert ledger.tokens == {1: tokens, 2: expected_tokens([9], 40)}
    assert ledger.logprobs.keys() == {1}
    expected, told = expected_logprobs(1, tokens, likeliest), ledger.logprobs[1]
    assert told.sampled == expected.sampled
    assert (told.top_ids, told.top) == (expected.top_ids, expected.top)


async def test_log_probabilities_merge_by_turn_and_a_frame_of_them_closes() -> None:
    outbox, likeliest = Outbox(pb.Load), 20
    scores = expected_logprobs(7, [5], likeliest)
    steps = MAX_LOGPROBS // (likeliest + 1) + 10
    for _ in range(steps):
        outbox.scored(7, [5], scores)
        outbox.token(8, 6)
    first, last = await outbox.frames()
    assert last.step.counts == [9, 9]
    ledger = Ledger()
    ledger.add(first)
    ledger.add(last)
    assert ledger.tokens == {7: [5] * steps, 8: [6] * steps}
    assert len(ledger.logprobs[7].top) == steps * likeliest
    assert first.ByteSize() < 16 << 20


async def test_unread_refusals_hold_back_the_sender() -> None:
    async with running_replica(capacity=1) as replica, replica.gateway() as gateway:
        for id in range(1, 5001):
            await gateway.submit(id, [], 1)
        ledger = await gateway.finished(*range(1, 5001))
    assert len(ledger.finishes) == 5000


async def test_garbage_ends_only_its_own_stream() -> None:
    async with running_replica() as replica, replica.gateway() as gateway:
        async with grpc.aio.insecure_channel(replica.address) as channel:
            call = channel.stream_stream("/headrace.link.v1.EngineLink/Connect")()
            hello = pb.Command(hello=pb.Hello(token=TOKEN))
            await call.write(hello.SerializeToString())
            await call.read()
            await call.write(b"\xff\xff\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        await gateway.submit(1, PROMPT, 5)
        assert (await gateway.finished(1)).tokens[1] == expected_tokens(PROMPT, 5)
