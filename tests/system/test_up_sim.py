"""`headrace up --engine sim` as a real command: every process real, only the tokens are invented."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.telemetry import names
from deploy.local.record import MARK

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]


class Command:
    """The headrace command with a home of its own; the cache of checkpoints is the machine's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        cache = os.environ.get("HEADRACE_CACHE")
        self.env = kept | {"HEADRACE_HOME": str(home)} | ({"HEADRACE_CACHE": cache} if cache else {})

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "services.cli", *arguments]
        return subprocess.Popen(
            argv, cwd=ROOT, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=280)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture(scope="module")
def headrace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"))
    yield command
    command("down")


def marked(stack: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == stack:
                found.append(process)
        except psutil.Error:
            continue
    return found


def open_ports(addresses: list[str]) -> list[str]:
    return [address for address in addresses if _connects(*address.rsplit(":", 1))]


def _connects(host: str, port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def scraped(address: str, name: str, seconds: float) -> str:
    """What Ray's port tells once this metric is among it; Ray reports every ten seconds."""
    until = time.monotonic() + seconds
    while True:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
            figures: str = reply.read().decode()
        if f"\n{name}" in figures:
            return figures
        assert time.monotonic() < until, f"no {name} among {len(figures)} bytes"
        time.sleep(0.5)


def test_a_stack_lives_from_up_to_down_and_leaves_nothing(headrace: Command) -> None:
    up = headrace("up", "--engine", "sim", "--port", "0")
    assert up.returncode == 0, up.stderr
    for stage in ("weights", "store", "ray", "engine", "gateway", "first token"):
        assert f"\n  {stage} " in up.stdout
    record = json.loads((headrace.home / "stack.json").read_text())
    addresses = [record[name] for name in ("endpoint", "health", "metrics", "store", "ray", "ray_metrics")]
    assert open_ports(addresses) == addresses

    answer = headrace("chat", "--max-tokens", "8", "Hello")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()

    session = headrace("chat", "--session", "new", "--max-tokens", "4", "Hello").stderr.split()[1]
    kept = json.loads(headrace("sessions", "show", "--json", session).stdout)
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]

    shown = headrace("status", "--json")
    status = json.loads(shown.stdout)
    assert (shown.returncode, status["health"], status["trouble"]) == (0, "SERVING", [])
    assert [replica["connected"] for replica in status["models"][0]["replicas"]] == [True]
    assert all(process["alive"] for process in status["processes"])

    figures = scraped(record["ray_metrics"], "ray_headrace_replica_steps_total", seconds=40)
    for metric in names.REPLICA:
        if metric is not names.CANARY_FAILURES:  # there was none
            assert f"\n{names.PREFIX}{metric.name}" in figures, metric.name

    survey = headrace("doctor", "--cluster", "--json")
    verdicts = {check["name"]: check["verdict"] for check in json.loads(survey.stdout)}
    assert survey.returncode == 0, survey.stdout
    assert (
        verdicts["versions"] == verdicts["niceness"] == verdicts["store policy"] == verdicts["clocks"] == "ok"
    )
    assert verdicts["store durability"] == "warn"  # one store alone

    again = headrace("up", "--port", "0")
    assert (again.returncode, "already up" in again.stdout) == (0, True)
    other = headrace("up", "--engine", "vllm")
    assert (other.returncode, "headrace down" in other.stderr) == (1, True)

    refused = headrace("chat", "--max-tokens", "0", "Hello")
    assert (refused.returncode, "max_tokens" in refused.stderr) == (4, True)

    down = headrace("down")
    assert down.returncode == 0, down.stderr
    assert "gateway" in down.stdout
    assert marked(record["id"]) == []
    assert open_ports(addresses) == []
    assert not Path(record["scratch"]).exists()
    assert headrace("down").stdout == "Nothing was up.\n"
    away = headrace("doctor", "--cluster")
    assert (away.returncode, "Traceback" in away.stderr, "RAY_ADDRESS" in away.stdout) == (1, False, True)


def test_an_interrupted_up_takes_down_what_it_had_started(headrace: Command) -> None:
    with headrace.start("up", "--engine", "sim", "--port", "0") as up:
        assert up.stdout
        said = next(line for line in up.stdout if line.startswith("  ray "))
        record = json.loads((headrace.home / "stack.json").read_text())
        assert marked(record["id"]), said
        busy = headrace("down")
        assert (busy.returncode, "at work" in busy.stderr) == (1, True)
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=120)
    assert up.returncode == 130
    assert marked(record["id"]) == []
    assert not (headrace.home / "stack.json").exists()
