import asyncio

import pytest

from cluster.engine.health import Health, HealthLimits, Unhealthy
from cluster.engine.port import EngineDead, EngineRequest, Load
from cluster.engine.sim import SimEngine

LIMITS = HealthLimits(canary_period_s=5, canary_timeout_s=20, canary_queued_timeout_s=120, stall_s=30)


class Bench:
    """A hand-driven clock, load and canary."""

    def __init__(self) -> None:
        self.now = 0.0
        self.load = Load()
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.probes: list[float] = []
        self.health = Health(self.probe, lambda: self.load, LIMITS, self)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def probe(self) -> None:
        self.probes.append(self.now)
        await self.answer


async def started(bench: Bench) -> asyncio.Task[None]:
    probing = asyncio.create_task(bench.health.probe_once())
    await asyncio.sleep(0)
    return probing


async def test_an_idle_engine_is_healthy_however_long_it_idles() -> None:
    bench = Bench()
    bench.now = 1e6
    bench.health.check()


async def test_a_canary_without_an_answer_is_unhealthy_after_its_time() -> None:
    bench = Bench()
    probing = await started(bench)
    bench.load = Load(running=0, waiting=1, steps=1)
    bench.health.check()
    bench.now = 20.1
    bench.load = Load(running=0, waiting=1, steps=2)
    with pytest.raises(Unhealthy, match=r"canary in 20\.1 s"):
        bench.health.check()
    probing.cancel()


async def test_a_canary_behind_a_queue_has_more_time() -> None:
    bench = Bench()
    probing = await started(bench)
    for now in (25, 50, 75, 100, 119):
        bench.now = now
        bench.load = Load(running=8, waiting=9, steps=now)
        bench.health.check()
    bench.now = 121
    bench.load = Load(running=8, waiting=9, steps=121)
    with pytest.raises(Unhealthy, match="canary"):
        bench.health.check()
    probing.cancel()


async def test_an_answered_canary_is_forgotten() -> None:
    bench = Bench()
    bench.answer.set_result(None)
    await bench.health.probe_once()
    bench.now = 1000
    bench.health.check()


async def test_a_failed_canary_stays_a_failure() -> None:
    bench = Bench()
    bench.answer.set_exception(EngineDead("gone"))
    await bench.health.run()
    assert bench.probes == [0]
    with pytest.raises(Unhealthy, match="gone"):
        bench.health.check()


async def test_turns_without_steps_are_a_stall() -> None:
    bench = Bench()
    bench.load = Load(running=2, waiting=1, steps=7)
    bench.health.check()
    bench.now = 30
    bench.health.check()
    bench.now = 30.5
    with pytest.raises(Unhealthy, match=r"no engine step in 30\.5 s with 3 turns"):
        bench.health.check()
    bench.load = Load(running=2, waiting=1, steps=8)
    bench.health.check()


async def test_canaries_come_by_period() -> None:
    bench = Bench()
    bench.answer.set_result(None)
    running = asyncio.create_task(bench.health.run())
    while len(bench.probes) < 4:
        await asyncio.sleep(0)
    assert bench.probes == [0, 5, 10, 15]
    running.cancel()


async def test_a_hanging_engine_is_a_stall_until_it_goes_on() -> None:
    bench, engine = Bench(), SimEngine()
    health = Health(bench.probe, engine.load, LIMITS, bench)
    engine.hang = True
    await engine.submit(EngineRequest(id=1, prompt=[1], max_tokens=5))
    stepping = asyncio.create_task(engine.step())
    health.check()
    bench.now = 31
    with pytest.raises(Unhealthy, match="1 turns"):
        health.check()
    engine.resume()
    await stepping
    health.check()
