"""Routing on running engines: what affinity finds in prefix caches, and what it costs in balance."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.engine.port import Cause, EngineRequest
from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2 as pb
from services.api.headrace.v1 import sessions_pb2
from services.routing.load import STALE_LOAD
from services.routing.router import Wish
from services.telemetry.metrics import EJECTIONS, ROUTES
from tests.support.gateway import MODEL, Endpoint, ask, mint_key, running_gateway, until, user

REPLICAS = 4
WORDS = ("river", "stone", "market", "engine", "letter", "garden", "signal", "winter", "copper", "harbour")
# Room for the system prompts of about a third of the tenants' applications on each replica.
SIM = SimSettings(
    timing=SimTiming(step_s=0.001, step_s_per_turn=0, prefill_tokens_per_s=400_000),
    context_length=2048,
    vocab_size=49152,
    cached_blocks=200,
)


@dataclass(frozen=True, slots=True)
class Measured:
    hit_rate: float  # of all prompt tokens
    imbalance: float  # most turns of a replica over the mean
    reasons: Counter[str]


def applications(count: int) -> list[str]:
    """System prompts of about 300 tokens."""
    drawn = random.Random(7)
    return [" ".join(drawn.choice(WORDS) for _ in range(280)) for _ in range(count)]


def request(system: str, question: str, tokens: int = 8) -> pb.GenerateRequest:
    said = pb.Message(role=pb.ROLE_SYSTEM, content=[pb.Part(text=system)])
    return pb.GenerateRequest(messages=[said, user(question)], max_tokens=tokens)


@contextmanager
def counted(endpoint: Endpoint) -> Iterator[Counter[str]]:
    """Turns that each replica was given."""
    turns = Counter[str]()
    with pytest.MonkeyPatch.context() as patch:
        for replica in endpoint.replicas:

            async def submit(
                request: EngineRequest, name: str = replica.lease.replica, own: Any = replica.engine.submit
            ) -> None:
                turns[name] += 1
                await own(request)

            patch.setattr(replica.engine, "submit", submit)
        yield turns


def reasons() -> Counter[str]:
    samples = (sample for metric in ROUTES.collect() for sample in metric.samples)
    return Counter({s.labels["reason"]: int(s.value) for s in samples if s.name.endswith("_total")})


async def measure(
    systems: list[str], turns: int, *, affinity: bool, at_once: int = 16, tokens: int = 8
) -> Measured:
    drawn, before = random.Random(11), reasons()
    asked = [
        request(drawn.choice(systems), f"question {i} of {drawn.random()}", tokens) for i in range(turns)
    ]
    async with running_gateway(replicas=REPLICAS, sim=SIM) as endpoint:
        if not affinity:
            endpoint.deps.router.wish = lambda salt, prompt, session: Wish()  # type: ignore[method-assign]
        gate = asyncio.Semaphore(at_once)

        async def one(asked: pb.GenerateRequest) -> pb.Usage:
            async with gate:
                return (await endpoint.inference.Generate(asked, metadata=endpoint.auth)).usage

        with counted(endpoint) as taken:
            usages = await asyncio.gather(*(one(each) for each in asked))
    cached, prompt = sum(u.cached_tokens for u in usages), sum(u.prompt_tokens for u in usages)
    imbalance = max(taken.values()) * REPLICAS / turns
    return Measured(cached / prompt, imbalance, reasons() - before)


async def test_affinity_finds_shared_system_prompts_in_caches_that_are_too_small_for_all_of_them() -> None:
    systems = applications(24)
    plain = await measure(systems, 480, affinity=False)
    kept = await measure(systems, 480, affinity=True)
    print(f"\nleast wait: {plain}\naffinity: {kept}")
    assert kept.hit_rate > 1.8 * plain.hit_rate
    assert kept.imbalance < 1.5


async def test_one_popular_system_prompt_makes_no_hot_spot() -> None:
    [system] = applications(1)
    kept = await measure([system], 320, affinity=True, at_once=64, tokens=100)
    print(f"\none system prompt: {kept}")
    assert kept.imbalance <= 1.4 and kept.hit_rate > 0.85


async def test_a_sessions_turns_stay_on_one_replica() -> None:
    async with running_gateway(replicas=REPLICAS, sim=SIM) as endpoint:
        with counted(endpoint) as taken:
            for _ in range(5):
                session = await endpoint.sessions.Create(
                    sessions_pb2.CreateSessionRequest(), metadata=endpoint.auth
                )
                before = Counter(taken)
                for i in range(4):
                    asked = ask(f"turn {i}", session=session.id, max_tokens=8)
                    await endpoint.inference.Generate(asked, metadata=endpoint.auth)
                assert sorted((taken - before).values()) == [4]
        assert len(taken) > 1


async def test_two_tenants_with_one_prompt_share_no_cache_and_every_order_has_its_tenants_salt() -> None:
    seen = list[EngineRequest]()
    [system] = applications(1)
    async with running_gateway(sim=SIM) as endpoint:
        [replica] = endpoint.replicas
        own = replica.engine.submit

        async def submit(request: EngineRequest) -> None:
            seen.append(request)
            await own(request)

        replica.engine.submit = submit
        globex = (("authorization", f"Bearer {await mint_key(endpoint.stores, 'globex')}"),)
        usages = []
        for who in (endpoint.auth, globex, endpoint.auth, globex):
            reply = await endpoint.inference.Generate(request(system, "what?"), metadata=who)
            usages.append(reply.usage.cached_tokens)
        assert usages[:2] == [0, 0] and min(usages[2:]) > 200
        acme, other = endpoint.deps.salt("acme"), endpoint.deps.salt("globex")
        assert acme != other and len(acme) == 64
        assert [r.cache_salt for r in seen] == [acme, other, acme, other]
        assert len({tuple(r.prompt) for r in seen}) == 1


async def test_a_replica_that_ends_every_turn_is_left_alone_for_a_while() -> None:
    before = EJECTIONS.labels(MODEL, "failing")._value.get()
    async with running_gateway(replicas=2, sim=SIM, capacity=8) as endpoint:
        broken = endpoint.replicas[0]

        async def submit(request: EngineRequest) -> None:
            await own(request)
            await broken.board.end_all(Cause.ENGINE)

        own = broken.engine.submit
        broken.engine.submit = submit
        for i in range(12):
            reply = await endpoint.inference.Generate(ask(f"{i}", max_tokens=4), metadata=endpoint.auth)
            assert reply.usage.completion_tokens == 4
        assert EJECTIONS.labels(MODEL, "failing")._value.get() == before + 1


async def test_a_replica_that_leaves_a_ping_unanswered_gets_no_turn() -> None:
    async with running_gateway(replicas=2, sim=SIM) as endpoint:
        quiet, other = endpoint.deps.directory.links()
        quiet.asked_at = asyncio.get_running_loop().time() - STALE_LOAD
        assert quiet.ready
        with counted(endpoint) as taken:
            for i in range(4):
                await endpoint.inference.Generate(ask(f"{i}", max_tokens=2), metadata=endpoint.auth)
        assert taken == {other.name: 4}
        quiet.ping()
        await until(lambda: quiet.asked_at == float("inf"))


async def test_a_gateway_that_stood_still_does_not_take_its_replicas_for_full() -> None:
    async with running_gateway(replicas=2, sim=SIM) as endpoint:
        watch = endpoint.deps.tasks.start(endpoint.deps.directory.watch(), "directory")
        [first, _] = endpoint.deps.directory.links()
        heard = first.heard_at
        await until(lambda: first.heard_at > heard)
        turns = [
            asyncio.ensure_future(
                endpoint.inference.Generate(ask(f"{i}", max_tokens=4), metadata=endpoint.auth)
            )
            for i in range(8)
        ]
        await asyncio.sleep(0)
        time.sleep(STALE_LOAD + 0.3)  # as a long collection or a stopped machine does
        for turn in turns:
            assert (await turn).usage.completion_tokens == 4
        watch.cancel()
