"""`headrace drill` and `headrace turns` on a real stack: what it kills is killed, what it says is so."""

import json
from collections.abc import Iterator

import psutil
import pytest

from tests.support.up import Up, running_stack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_stack(
        tmp_path_factory.mktemp("home"), "--engine", "sim", "--replicas", "2", "--workers", "2"
    ) as up:
        yield up


def test_every_stream_survives_a_killed_replica(stack: Up) -> None:
    drill = stack.run("drill", "--json")
    assert drill.returncode == 0, drill.stderr
    verdict = json.loads(drill.stdout)
    assert (verdict["streams"], verdict["finished"], verdict["faults"]) == (16, 16, {})
    assert verdict["exact"]
    assert 0 < verdict["moved"] < 16  # the other replica's streams stayed where they were
    [kill] = verdict["kills"]
    assert (kill["what"], kill["gone"], psutil.pid_exists(kill["pid"])) == ("replica", True, False)


def test_every_stream_survives_a_killed_gateway_worker_too(stack: Up) -> None:
    drill = stack.run("drill", "--gateway", "--streams", "8")
    assert drill.returncode == 0, drill.stdout + drill.stderr
    line = drill.stdout.splitlines()[-1]
    assert line.startswith("8 of 8 streams finished; 0 tokens lost, repeated or reordered")
    assert "8 went on elsewhere" in line
    assert line.count("proof: gone") == 2


def test_a_turn_is_started_read_looked_at_and_cancelled(stack: Up) -> None:
    turn = stack.run("turns", "start", "Hello", "--max-tokens", "40").stdout.strip()
    read = stack.run("turns", "resume", turn)
    assert (read.returncode, bool(read.stdout.strip())) == (0, True)
    got = json.loads(stack.run("turns", "get", "--json", turn).stdout)
    assert (got["state"], got["answer"]["message"]["text"]) == ("finished", read.stdout.strip("\n"))
    shown = stack.run("turns", "cancel", turn)
    assert (shown.stdout, shown.stderr) == (read.stdout, f"{turn} finished\n")
    unknown = stack.run("turns", "get", "turn_" + 32 * "0")
    assert unknown.returncode == 4
