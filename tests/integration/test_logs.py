"""What is written to logs: JSON with the ids of a turn, and never what was said, at any level."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.telemetry import logs as replicas
from services.client import Client
from services.telemetry import logs
from tests.support.collector import running_collector
from tests.support.gateway import ask, running_gateway

SECRET = "xyzzy-plugh"
ROOT = Path(__file__).parents[2]


async def scenes(endpoint: Any) -> str:
    """Turns that end well and badly, with a session and without; returns what was answered."""
    said = ""
    async with Client(endpoint.address, endpoint.key) as client:
        session = await client.sessions.create(system=SECRET)
        for wish in ({}, {"session": session.id}, {"stop": [SECRET]}, {"idempotency_key": "k"}):
            said += (await client.generate(SECRET, max_tokens=12, **wish)).message.text
    for bad in (ask(SECRET, max_tokens=0), ask(SECRET, model=SECRET), ask(SECRET, session=SECRET)):
        try:
            await endpoint.stream(bad)
        except grpc.aio.AioRpcError:
            continue
    replica = endpoint.replicas[0]
    replica.engine.fail_after_steps = replica.engine.load().steps + 3
    try:
        await endpoint.stream(ask(SECRET, max_tokens=50))
    except grpc.aio.AioRpcError:
        return said
    raise AssertionError("the engine lives")


async def main() -> None:
    logs.configure("debug")
    logging.getLogger().setLevel(logging.DEBUG)
    replicas.configure("DEBUG")
    async with (
        running_collector() as collector,
        running_gateway(otlp_endpoint=collector.address, trace_ratio=1, recovery=0.1) as endpoint,
    ):
        print(json.dumps(await scenes(endpoint)))


def test_nothing_of_what_was_said_is_in_the_logs_at_any_level() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": "1"}
    command = [sys.executable, "-m", "tests.integration.test_logs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert SECRET not in done.stderr
    assert answer and answer not in done.stderr
    words = {word for word in answer.split() if len(word) > 6 and word.isalpha()}
    assert words and not [word for word in words if word in done.stderr]
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    turns = [line for line in lines if line["event"] == "turn"]
    assert {line["outcome"] for line in turns} >= {"completed", "engine_lost"}
    for line in turns:
        assert len(line["trace_id"]) == 32 and len(line["span_id"]) == 16 and line["turn"]
    others = [line["logger"] for line in lines if "logger" in line]
    assert "cluster.link.server" in others  # the replicas' lines are JSON too


def test_a_replicas_line_has_the_ids_that_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("cluster.x", logging.WARNING, "f", 1, "gateway %s left", ("g",), None)
    record.turn, record.trace_id = "turn_1", "ab" * 16
    line = json.loads(replicas.Json().format(record))
    assert line["event"] == "gateway g left" and line["level"] == "warning"
    assert (line["turn"], line["trace_id"]) == ("turn_1", "ab" * 16)
    assert "span_id" not in line and line["timestamp"].endswith("Z")


if __name__ == "__main__":
    asyncio.run(main())
