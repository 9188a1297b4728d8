"""The gateway as operators run it: supervisor and workers as processes, a real Valkey, leases."""

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from services.gateway.errors import EXIT_CONFIG
from services.store.connect import connect
from services.tenancy.redis import RedisKeyStore
from tests.support.gateway import (
    CHECKPOINT,
    MODEL,
    PEPPER,
    TOKEN,
    ask,
    memory_stores,
    mint_key,
    sim_replica,
    until,
)
from tests.support.valkey import Valkey, free_port, running_cluster, running_valkey

SLOW = SimSettings(timing=SimTiming(step_s=0.01, scale=1), context_length=2048, vocab_size=49152)
ROOT = Path(__file__).parent.parent.parent


@dataclass(slots=True)
class Running:
    process: asyncio.subprocess.Process
    valkey: Valkey
    channel: grpc.aio.Channel
    health: Any
    metrics: str
    auth: tuple[tuple[str, str], ...]
    log: Path

    @property
    def inference(self) -> Any:
        return inference_pb2_grpc.InferenceStub(self.channel)

    async def status(self, service: str = "") -> int:
        asked = health_pb2.HealthCheckRequest(service=service)
        reply = await self.health.Check(asked, wait_for_ready=True, timeout=20)
        return int(reply.status)

    async def until_serving(self) -> None:
        async for reply in self.health.Watch(
            health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30
        ):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return

    def scrape(self) -> str:
        with urllib.request.urlopen(self.metrics, timeout=5) as reply:
            return str(reply.read().decode())

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


def environment(redis_url: str, **overrides: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    listen = {
        name: f"127.0.0.1:{free_port()}"
        for name in ("HEADRACE_LISTEN", "HEADRACE_HEALTH_LISTEN", "HEADRACE_METRICS_LISTEN")
    }
    return (
        kept
        | listen
        | {
            "HEADRACE_REDIS_URL": redis_url,
            "HEADRACE_KEY_PEPPER": PEPPER,
            "HEADRACE_LINK_TOKEN": TOKEN,
            "HEADRACE_MODELS": f'{{"{MODEL}": "{CHECKPOINT}"}}',
            "HEADRACE_REFLECTION": "true",
            "HEADRACE_DRAIN_GRACE": "10",
        }
        | overrides
    )


async def start(env: dict[str, str], log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.gateway", env=env, cwd=ROOT, stdout=output, stderr=output
        )


async def announce(valkey: Valkey, lease: Any) -> None:
    import json
    from dataclasses import asdict

    client = connect(valkey.url, timeout=2)
    await client.set(f"headrace:lease:{lease.replica}", json.dumps(asdict(lease)))
    await client.sadd("headrace:replicas", lease.replica)
    await client.aclose()


async def new_key(valkey: Valkey) -> str:
    client = connect(valkey.url, timeout=2)
    stores = memory_stores()
    key = await mint_key(replace(stores, keys=RedisKeyStore(client)))
    await client.aclose()
    return key


@asynccontextmanager
async def running(
    store: Callable[[], AbstractContextManager[Any]] = running_valkey, **overrides: str
) -> AsyncIterator[Running]:
    with store() as valkey, tempfile.NamedTemporaryFile(suffix=".log") as log:
        async with sim_replica("sim-0", SLOW) as replica:
            await announce(valkey, replica.lease)
            auth = (("authorization", f"Bearer {await new_key(valkey)}"),)
            env = environment(valkey.url, **overrides)
            process = await start(env, Path(log.name))
            async with (
                grpc.aio.insecure_channel(env["HEADRACE_LISTEN"]) as channel,
                grpc.aio.insecure_channel(env["HEADRACE_HEALTH_LISTEN"]) as health,
            ):
                stub = health_pb2_grpc.HealthStub(health)
                metrics = f"http://{env['HEADRACE_METRICS_LISTEN']}/metrics"
                gateway = Running(process, valkey, channel, stub, metrics, auth, Path(log.name))
                try:
                    await gateway.until_serving()
                    yield gateway
                finally:
                    if process.returncode is None:
                        process.kill()
                    await process.wait()


async def first_delta(call: Any) -> None:
    async for event in call:
        if event.WhichOneof("event") == "delta":
            return


async def test_two_workers_serve_one_port_with_reflection_and_metrics() -> None:
    async with running(HEADRACE_PROCESSES="2") as gateway:
        reply = await gateway.inference.Generate(ask(max_tokens=5), metadata=gateway.auth)
        assert reply.usage.completion_tokens == 5
        assert len(gateway.workers()) == 2  # both are started before the first is ready
        reflect = reflection_pb2_grpc.ServerReflectionStub(gateway.channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        async for answer in reflect:
            names = {service.name for service in answer.list_services_response.service}
        assert {"headrace.v1.Inference", "headrace.v1.Models", "headrace.v1.Sessions"} <= names
        exposed = gateway.scrape()
        assert re.search(
            r'headrace_requests_total\{method="Inference/Generate",outcome="completed"\} 1.0', exposed
        )
        for name in ("ttft", "inter_token", "turn", "queue"):
            assert f'headrace_{name}_seconds_count{{model="{MODEL}"}}' in exposed
        assert f'headrace_completion_tokens_total{{model="{MODEL}"}} 5.0' in exposed
        assert "headrace_link_up" in exposed and "headrace_engine_running" in exposed


async def test_a_cluster_is_a_store_as_good_as_one_server() -> None:
    async with running(running_cluster) as gateway:
        reply = await gateway.inference.Generate(ask(max_tokens=5), metadata=gateway.auth)
        assert reply.usage.completion_tokens == 5
        sessions = sessions_pb2_grpc.SessionsStub(gateway.channel)
        made = await sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=gateway.auth)
        for _ in range(2):
            await gateway.inference.Generate(ask(max_tokens=2, session=made.id), metadata=gateway.auth)
        page = await sessions.List(sessions_pb2.ListSessionsRequest(), metadata=gateway.auth)
        assert [session.id for session in page.sessions] == [made.id]
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.process.wait() == 0
        # Every master has a part of it.
        assert all(int(master.ask("DBSIZE")) for master in gateway.valkey.masters)


async def test_sigterm_says_not_serving_lets_the_turn_end_and_exits_cleanly() -> None:
    async with running() as gateway:
        call = gateway.inference.StreamGenerate(ask(max_tokens=100), metadata=gateway.auth)
        await first_delta(call)
        gateway.process.send_signal(signal.SIGTERM)
        async for reply in gateway.health.Watch(health_pb2.HealthCheckRequest(), timeout=20):
            if reply.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
        rest = [event async for event in call]
        assert rest[-1].WhichOneof("event") == "finished"
        assert await gateway.process.wait() == 0


async def test_a_draining_gateway_is_alive_and_not_ready() -> None:
    states = health_pb2.HealthCheckResponse
    async with running() as gateway:
        assert await gateway.status("readiness") == await gateway.status("liveness") == states.SERVING
        call = gateway.inference.StreamGenerate(ask(max_tokens=100), metadata=gateway.auth)
        await first_delta(call)
        gateway.process.send_signal(signal.SIGTERM)
        async for reply in gateway.health.Watch(
            health_pb2.HealthCheckRequest(service="readiness"), timeout=20
        ):
            if reply.status == states.NOT_SERVING:
                break
        assert await gateway.status("liveness") == states.SERVING


async def test_readers_of_a_turn_longer_than_the_grace_are_told_to_resume_it() -> None:
    async with running(HEADRACE_DRAIN_GRACE="0.2") as gateway:
        call = gateway.inference.StreamGenerate(ask(max_tokens=2000), metadata=gateway.auth)
        await first_delta(call)
        gateway.process.send_signal(signal.SIGTERM)
        rest = []
        with pytest.raises(grpc.aio.AioRpcError) as end:
            async for event in call:
                rest.append(event)
        assert end.value.code() is grpc.StatusCode.UNAVAILABLE and "resume it" in str(end.value.details())
        assert rest[-1].HasField("delta")  # the turn has not ended
        assert await gateway.process.wait() == 0


async def test_a_killed_worker_is_replaced() -> None:
    async with running() as gateway:
        [before] = gateway.workers()
        before.kill()
        async for reply in gateway.health.Watch(health_pb2.HealthCheckRequest(), timeout=30):
            if reply.status == health_pb2.HealthCheckResponse.SERVING and gateway.workers() != [before]:
                break
        reply = await gateway.inference.Generate(
            ask(max_tokens=3), metadata=gateway.auth, wait_for_ready=True, timeout=20
        )
        assert reply.usage.completion_tokens == 3


async def test_without_redis_running_streams_go_on_and_only_sessions_are_refused() -> None:
    async with running() as gateway:
        sessions = sessions_pb2_grpc.SessionsStub(gateway.channel)
        session = await sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=gateway.auth)
        call = gateway.inference.StreamGenerate(ask(max_tokens=150), metadata=gateway.auth)
        await first_delta(call)
        gateway.valkey.stop()
        fresh = await gateway.inference.Generate(ask(max_tokens=5), metadata=gateway.auth)
        assert fresh.usage.completion_tokens == 5
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await gateway.inference.Generate(ask(session=session.id, max_tokens=5), metadata=gateway.auth)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        rest = [event async for event in call]
        assert rest[-1].WhichOneof("event") == "finished"


async def test_content_and_secrets_are_in_no_log_and_no_metric() -> None:
    canary = f"canary{secrets.token_hex(8)}"
    async with running() as gateway:
        sessions = sessions_pb2_grpc.SessionsStub(gateway.channel)
        session = await sessions.Create(sessions_pb2.CreateSessionRequest(), metadata=gateway.auth)
        asked = ask(canary, session=session.id, max_tokens=5, stop=[canary])
        answer = await gateway.inference.Generate(asked, metadata=gateway.auth)
        refused = [ask(canary, max_tokens=10**9), ask(canary, model=canary), ask(canary, session=canary)]
        for request in refused:
            with pytest.raises(grpc.aio.AioRpcError):
                await gateway.inference.Generate(request, metadata=gateway.auth)
        call = gateway.inference.StreamGenerate(ask(canary, max_tokens=2000), metadata=gateway.auth)
        await first_delta(call)
        gateway.workers()[0].kill()
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        await until(lambda: '"event": "worker ended"' in gateway.log.read_text())
        seen = gateway.log.read_text() + gateway.scrape()
        assert '"event": "turn"' in seen and "headrace_turns_total" in seen
        private = (canary, answer.message.content[0].text, gateway.auth[0][1].split("_")[3], PEPPER, TOKEN)
        assert [secret for secret in private if secret in seen] == []


async def output_of(env: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.gateway", env=env, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_redis_away_at_start_is_one_clear_line() -> None:
    code, errors = await output_of(environment(f"redis://:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/0"))
    assert code == EXIT_CONFIG and "Traceback" not in errors
    assert "Redis does not answer" in errors and "HEADRACE_REDIS_URL" in errors


@pytest.mark.parametrize(
    ("place", "expected"),
    [("", "refuses the login"), (":wrong@", "refuses the login"), (":right@", "HEADRACE_REDIS_URL")],
)
async def test_a_redis_that_refuses_the_gateway_is_one_clear_line(place: str, expected: str) -> None:
    with running_valkey("--requirepass", "right") as valkey:
        url = f"redis://{place}127.0.0.1:{valkey.port}/99"
        code, errors = await output_of(environment(url))
    assert code == EXIT_CONFIG and "Traceback" not in errors
    assert expected in errors and "right@" not in errors


async def test_a_worker_that_never_comes_up_ends_the_gateway() -> None:
    with running_valkey() as valkey:
        env = environment(valkey.url) | {"PYTHONPATH": str(ROOT), "HEADRACE_LISTEN": "127.0.0.1:1"}
        code, errors = await output_of(
            env | {"HEADRACE_TLS__CERTIFICATE": "/none", "HEADRACE_TLS__KEY": "/none"}
        )
    assert code == EXIT_CONFIG and "/none" in errors and "Traceback" not in errors


async def test_an_evicting_redis_is_refused() -> None:
    with running_valkey("--maxmemory-policy", "allkeys-lru") as valkey:
        code, errors = await output_of(environment(valkey.url))
    assert code == EXIT_CONFIG and "noeviction" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HEADRACE_PROCESSES", "many", "processes"),
        ("HEADRACE_LISTEN", "nowhere", "listen"),
        ("HEADRACE_MODELS", '{"m": "/does/not/exist"}', "/does/not/exist"),
        ("HEADRACE_SCREEN", '["("]', "screen"),
    ],
)
async def test_a_wrong_setting_is_one_line_that_names_it(name: str, value: str, expected: str) -> None:
    with running_valkey() as valkey:
        code, errors = await output_of(environment(valkey.url, **{name: value}))
    assert code == EXIT_CONFIG and expected in errors and "Traceback" not in errors, errors
