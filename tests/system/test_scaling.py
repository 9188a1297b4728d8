"""Autoscaling on a real Ray, open-loop load through the real gateway: one replica to several and back, to none and
back to one, with a controller that dies on the way and a store that is away. No turn fails, and every step of the
decision log is explained."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import psutil
import pytest
from redis import Redis

from cluster.serving.names import log_key
from services.client import Client, Delta, Event, Waiting
from tests.support.two_nodes import title as words_of
from tests.support.up import ROOT, Up, running_stack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

MOST = 3
SCALING = {
    "min_replicas": 0,
    "max_replicas": MOST,
    "target_turns": 4,
    "upscale_delay_seconds": 1.5,
    "downscale_delay_seconds": 4,
    "downscale_step_seconds": 1,
    "downscale_to_zero_delay_seconds": 5,
    "stale_after_seconds": 4,
}
TOKENS = 60  # of a turn; a second and a half of SimEngine's steps here
SIM = {"timing": {"step_s": 0.025}, "context_length": 4096, "vocab_size": 49152}
MORE, LESS = {"turns", "kv", "prefill", "held", "wake", "bounds"}, {"less", "idle"}


@dataclass(slots=True)
class Fleet:
    up: Up
    model: str
    url: str = field(repr=False)

    @classmethod
    def of(cls, up: Up) -> "Fleet":
        """Scaled by quicker settings than `up`'s, with the rest of the configuration as it is."""
        path = up.home / "engine.json"
        config = json.loads(path.read_text())
        config["autoscaling"] = SCALING
        config["settings"] |= {"sim": SIM, "num_cpus": 0.1, "drain_grace_s": 5}
        path.write_text(json.dumps(config))
        made = cls(up, config["settings"]["model"], config["settings"]["redis_url"])
        made.deploy()
        return made

    def deploy(self) -> None:
        record = self.up.record
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.up.home / "ray-token")}
        env = self.up.env | token | {"RAY_ADDRESS": record["ray"], "TMPDIR": record["scratch"]}
        argv = [sys.executable, "-m", "cluster.serving", "--config", str(self.up.home / "engine.json")]
        done = subprocess.run(argv, env=env, cwd=ROOT, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self, title: str) -> list[psutil.Process]:
        family = psutil.Process(self.up.pid("ray")).children(recursive=True)
        return [one for one in family if title in words_of(one)]

    def replicas(self) -> set[int]:
        return {one.pid for one in self.processes("ServeReplica:")}

    def log(self) -> list[dict[str, Any]]:
        """The changes, oldest first."""
        with Redis.from_url(self.url) as redis:
            texts: Any = redis.lrange(log_key(self.model), 0, -1)
            return [json.loads(text) for text in reversed(texts)]

    def metric(self, name: str, label: str = "") -> float:
        """The largest value, 0 if it is not told."""
        with urllib.request.urlopen(f"http://{self.up.record['ray_metrics']}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        values = [line.split() for line in lines if line.startswith(f"{name}{{") and label in line]
        return max((float(value) for _, value in values), default=0.0)


async def shows(condition: Callable[[], bool], seconds: float, what: Callable[[], object]) -> float:
    """Waits for a state of other processes; returns after how long it was seen."""
    begun = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - begun < seconds, what()
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


@dataclass(slots=True)
class Load:
    """Turns that begin `rate` times a second whatever became of those before, without retries of the client's own."""

    client: Client
    rate: float
    turns: list["asyncio.Task[list[Event]]"] = field(default_factory=list)
    _begins: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> "Load":
        self._begins = asyncio.create_task(self._begin())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._begins is not None
        self._begins.cancel()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in count():
            await asyncio.sleep(begun + number / self.rate - loop.time())
            self.turns.append(asyncio.create_task(turn(self.client, f"question {number}")))

    async def ended(self) -> list[list[Event]]:
        """The events of all turns. Raises the error of one that failed."""
        return await asyncio.gather(*self.turns)


async def turn(client: Client, prompt: str) -> list[Event]:
    stream = client.stream(prompt, max_tokens=TOKENS, resume=False, timeout=120)
    return [event async for event in stream]


def whole(events: list[Event]) -> bool:
    return sum(event.tokens for event in events if isinstance(event, Delta)) == TOKENS


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "RAY_metrics_report_interval_ms", "1000")
        home = tmp_path_factory.mktemp("home")
        words = ("--engine", "sim", "--replicas", "1", "--max-replicas", str(MOST))
        with running_stack(home, *words) as up:
            yield Fleet.of(up)


async def told(client: Client, desired: int, current: int) -> None:
    """The gateway says so of the autoscaler, whom it asks every second."""
    async with asyncio.timeout(30):
        while True:
            [model] = await client.models()
            if model.scaling and (model.scaling.desired, model.scaling.current) == (desired, current):
                return
            await asyncio.sleep(0.1)


async def climbs(fleet: Fleet, client: Client) -> str:
    """From one replica to all under load, with a controller that is killed and a second deploy on the way."""
    await shows(lambda: len(fleet.replicas()) == 1, 60, fleet.log)
    async with Load(client, rate=8) as load:
        second = await shows(lambda: len(fleet.replicas()) >= 2, 60, fleet.log)
        [controller] = fleet.processes("ServeController")
        controller.kill()
        last = await shows(lambda: len(fleet.replicas()) == MOST, 90, fleet.log)
        await shows(lambda: fleet.metric("ray_headrace_scaling_current") == MOST, 60, fleet.log)
        # The same configuration once more replaces nobody, nor does it forget how many there are.
        before = fleet.replicas()
        await asyncio.to_thread(fleet.deploy)
        assert fleet.replicas() == before
    turns = await load.ended()
    assert all(map(whole, turns))
    return f"{len(turns)} turns, 0 failed; second replica after {second:.1f} s, {MOST} in {last:.1f} s more"


async def stays(fleet: Fleet) -> None:
    """Nobody knows what gateways hold while Redis is away, so nothing is removed."""
    store = psutil.Process(fleet.up.pid("store"))
    store.suspend()
    try:
        missing = 'because="missing"'
        await shows(lambda: fleet.metric("ray_headrace_scaling_held", missing) == 1, 60, fleet.log)
        assert len(fleet.replicas()) == MOST
    finally:
        store.resume()


async def sleeps_and_wakes(fleet: Fleet, client: Client) -> str:
    asleep = await shows(lambda: fleet.log()[-1]["after"] == 0, 90, fleet.log)
    await shows(lambda: not fleet.replicas(), 60, fleet.log)
    await told(client, desired=0, current=0)
    called = time.monotonic()
    woken = await turn(client, "wake up")
    assert whole(woken) and any(isinstance(event, Waiting) for event in woken)
    return f"none {asleep:.1f} s after Redis is back, a turn from none {time.monotonic() - called:.1f} s"


def explained(log: list[dict[str, Any]]) -> None:
    """Each step begins where the one before ended, has a reason of its direction, and is no larger than it may be."""
    assert all(one["after"] == other["before"] for one, other in pairwise(log)), log
    assert [max(each["after"] for each in log), log[-1]["after"]] == [MOST, 1]
    for change in log:
        before, after = change["before"], change["after"]
        assert change["reason"] in (MORE if after > before else LESS), change
        assert before - 1 <= after <= 2 * max(1, before), change


async def test_replicas_follow_the_load_and_no_turn_notices(fleet: Fleet) -> None:
    async with fleet.up.client() as client:
        up = await climbs(fleet, client)
        await stays(fleet)
        down = await sleeps_and_wakes(fleet, client)
    explained(fleet.log())
    [status] = json.loads(fleet.up.run("status", "--json").stdout)["models"]
    assert (status["scaling"]["desired"], status["changes"][0]["reason"]) == (1, "wake")
    print(f"{up}; {down}")
