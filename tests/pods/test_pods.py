"""Headrace as the chart's pods have it: command, environment, files, user and rights are those of the manifests."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.client import Client, Delta, Event, Finished
from tests.chart.test_documents import store_rights
from tests.pods.sandbox import Container, Running, sandboxes
from tests.pods.world import PODS, World

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TOKENS = 100  # of a turn; five seconds of the engine's steps here
NONE = [
    "Uid:\t10001\t10001\t10001\t10001",
    *(f"{each}:\t{0:016x}" for each in ("CapPrm", "CapEff", "CapBnd")),
    "NoNewPrivs:\t1",
]


@dataclass(slots=True)
class Release:
    world: World
    running: dict[str, Running]
    answer: str


async def ended_meanwhile(client: Client, gateway: Running, grace: float) -> AsyncIterator[Event]:
    """The events of a turn after whose first words the gateway is told to end; it has to end well."""
    end: asyncio.Task[int] | None = None
    async for event in client.stream("Tell me a story.", max_tokens=TOKENS):
        if isinstance(event, Delta) and end is None:
            end = asyncio.create_task(asyncio.to_thread(gateway.terminate, grace))
        yield event
    assert end is not None and await end == 0, gateway.log.read_text()[-2000:]


def rights(pid: int) -> list[str] | None:
    """User ids, capabilities and whether there may be more, as the kernel has them; None of a process that ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return [
            line for line in lines if line.startswith(("Uid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs"))
        ]
    return None


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder = tmp_path_factory.mktemp("pods")
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder)
        made = undo.enter_context(sandboxes(folder, PODS))
        if made is None:
            pytest.skip("this user may not make network namespaces")
        world = World.of(folder, made)
        running = {"store": world.store()}
        running |= {name: world.ray_pod(name) for name in ("head", "worker")}
        world.serve(running["head"])
        running["gateway"] = world.gateway()
        yield Release(world, running, world.helm_test())


def test_helm_test_gets_an_answer(release: Release) -> None:
    assert re.search(r"^[a-e]{16}", release.answer, re.MULTILINE), release.answer


def test_every_pod_runs_as_its_user_without_capabilities(release: Release) -> None:
    for name, running in release.running.items():
        for each in (running.main, *running.main.children(recursive=True)):
            assert rights(each.pid) in (NONE, None), (name, each)
        assert rights(running.main.pid) == NONE, name


def test_the_gateway_can_write_what_is_mounted_for_it_and_nothing_else(release: Release) -> None:
    places = "/ /etc /etc/headrace /home /run /usr/local/bin /var/tmp /models/tiny /tmp /models"
    script = f"for place in {places}; do touch $place/mark 2>/dev/null && echo $place; done; rm /tmp/mark /models/mark"
    assert release.world.inside(script).split() == ["/tmp", "/models"]


def replicas(deployment: dict[str, Any]) -> list[str]:
    return [each["replica_id"] for each in deployment["replicas"]]


def test_other_bounds_hold_without_a_new_replica(release: Release) -> None:
    """By a new engine's setting it is seen that Serve would have replaced it."""
    world, head = release.world, release.running["head"]
    before = world.deployment()
    wider = ("models.tiny.autoscaling.maxReplicas=2", "models.tiny.autoscaling.targetTurns=48")
    scaled = world.upgrade(head, *wider)
    config = scaled["deployment_config"]["autoscaling_config"]
    assert (config["max_replicas"], config["target_ongoing_requests"]) == (2, 48)
    assert replicas(scaled) == replicas(before)
    assert replicas(world.upgrade(head, *wider, "models.tiny.capacity=300")) != replicas(before)
    assert world.helm_test()


HEAD = """ray start --head --redis-username=ray --redis-password=of-ray --include-dashboard=false --num-cpus=0 &&
python -c "import ray; ray.init('auto')" """
CLEAN = """python -c "from ray._private.gcs_utils import cleanup_redis_storage
assert cleanup_redis_storage('$STORE', 6379, 'of-ray', False, 'another', username='ray')" """


def test_ray_keeps_finds_and_removes_its_state_with_the_rights_that_the_charts_readme_gives(
    release: Release,
) -> None:
    """A head that is killed and begun again, and then what KubeRay's Job does."""
    world, redis = release.world, release.world.redis()
    store = world.sandboxes["store"].address
    redis.execute_command("ACL", "SETUSER", "ray", "on", ">of-ray", *store_rights("ray").split())  # type: ignore[no-untyped-call]
    env = {"STORE": store, "RAY_REDIS_ADDRESS": f"{store}:6379", "RAY_external_storage_namespace": "another"}
    for script, keeps in ((HEAD, True), (HEAD, True), (CLEAN, False)):
        world.sandboxes["test"].run(Container("ray", ["bash", "-c", script], env, user=10001))
        assert bool(redis.keys("RAYanother@*")) is keeps
    assert redis.acl_log() == []


async def test_a_gateway_that_is_ended_finishes_its_streams_and_leaves_in_time(release: Release) -> None:
    world, gateway = release.world, release.running["gateway"]
    grace = world.template("Deployment")["spec"]["terminationGracePeriodSeconds"]
    async with Client(world.endpoint, world.key()) as client:
        events = [event async for event in ended_meanwhile(client, gateway, grace)]
    assert sum(event.tokens for event in events if isinstance(event, Delta)) == TOKENS
    assert [event.reason for event in events if isinstance(event, Finished)] == ["length"]
    # For the tests after this one, and as a kubelet would: in the same pod, with what is in its volumes.
    release.running["gateway"] = await asyncio.to_thread(world.gateway)
    assert await asyncio.to_thread(world.helm_test)
