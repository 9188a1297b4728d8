"""A real Prometheus beside a real stack: targets are up, rules load, and under load every panel shows something."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.observability.observe import Observer
from deploy.observability.panels import look
from deploy.observability.prometheus import Api
from services.client import Client, Sampling
from tests.support.up import ROOT, Up, running_stack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CALLERS = 4
PATIENCE = 90.0  # seconds until the last panel shows something; Ray reports each second here


def observe(up: Up, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "deploy.observability.observe", *words]
    return subprocess.run(argv, env=up.env, text=True, capture_output=True, cwd=ROOT, timeout=120)


@contextmanager
def observed(up: Up) -> Iterator[Observer]:
    subprocess.run([ROOT / "deploy/prometheus"], check=True, timeout=120)
    said = observe(up, "--detach", "--port", "0", "--interval", "1")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "target  up    headrace-gateway" in said.stdout
    assert "target  up    headrace-engine" in said.stdout
    assert "fails" not in said.stdout
    try:
        observer = Observer.load(up.home)
        assert observer
        yield observer
    finally:
        observe(up, "--down")


async def call(client: Client, number: int) -> None:
    """One caller: with a session and without, answers that end by themselves and such that are long."""
    while True:
        session = (await client.sessions.create()).id
        for _ in range(3):
            await client.generate(f"Story {number}", session=session, sampling=Sampling(temperature=0))


@asynccontextmanager
async def load(up: Up) -> AsyncIterator[list["asyncio.Task[Any]"]]:
    async with up.client() as client:
        calls = [asyncio.create_task(call(client, number)) for number in range(CALLERS)]
        try:
            yield calls
        finally:
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


async def test_every_panel_shows_something_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    with running_stack(tmp_path, "--engine", "sim") as up:
        with observed(up) as observer:
            async with load(up) as calls:
                empty = await _until_shown(Api(observer.address), calls)
            assert empty == []
            firing = [series["metric"]["alertname"] for series in Api(observer.address).query("ALERTS")]
            assert firing == []
        assert not psutil.pid_exists(observer.process.pid)
        assert not Path(observer.folder).exists()
        assert observe(up, "--down").stdout == "No Prometheus of `make observe` ran.\n"
        _ends_on_an_interrupt(up)


def _ends_on_an_interrupt(up: Up) -> None:
    argv = [sys.executable, "-m", "deploy.observability.observe", "--port", "0", "--interval", "1"]
    with subprocess.Popen(argv, env=up.env, cwd=ROOT, text=True, stdout=subprocess.PIPE) as watching:
        assert watching.stdout
        assert any(line.startswith("Ctrl-C stops it") for line in watching.stdout)
        observer = Observer.load(up.home)
        assert observer
        watching.send_signal(signal.SIGINT)
        said, _ = watching.communicate(timeout=30)
    assert said.endswith("Stopped Prometheus.\n")
    assert not psutil.pid_exists(observer.process.pid)


async def _until_shown(api: Api, calls: list["asyncio.Task[Any]"]) -> list[str]:
    """The queries that still show nothing when time is up."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        shown = await asyncio.to_thread(lambda: list(look(api)))
        empty = [f"{each.panel} [{each.legend}]" for each in shown if each.wrong]
        ended = [task.exception() for task in calls if task.done()]
        assert not ended, ended
        if not empty or loop.time() > end:
            return empty


def test_observing_nothing_says_what_to_do(tmp_path: Path) -> None:
    up = Up(tmp_path, {**os.environ, "HEADRACE_HOME": str(tmp_path)})
    said = observe(up)
    assert (said.returncode, said.stderr) == (
        1,
        "observe: no stack is up on this machine: run `make up` first\n",
    )
