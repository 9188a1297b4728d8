"""What `headrace doctor --cluster` says of what it could not ask."""

import json
import sys
from pathlib import Path

import pytest

from services.cli import survey
from services.cli.main import main
from tests.support.valkey import Valkey, acl_rule, running_valkey

Checks = dict[str, dict[str, str]]


def checks(capsys: pytest.CaptureFixture[str]) -> tuple[int, Checks]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--cluster", "--json"])
    return int(ended.value.code or 0), {each["name"]: each for each in json.loads(capsys.readouterr().out)}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setenv("HEADRACE_REDIS_URL", "redis://127.0.0.1:9")
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)


@pytest.mark.parametrize(
    "said",
    [
        "ModuleNotFoundError: No module named 'ray'",
        "python: Error while finding module specification for 'cluster.serving.survey' "
        "(ModuleNotFoundError: No module named 'ray')",
    ],
)
def test_without_ray_it_says_where_it_belongs(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (fake := tmp_path / "python").write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    code, found = checks(capsys)
    assert code == 1 and found["ray"]["verdict"] == "fail"
    assert found["ray"]["found"] == "Ray is not installed in this environment: no module ray"
    assert "-c ray-head -- headrace doctor --cluster" in found["ray"]["advice"]


def store(
    server: Valkey, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, Checks]:
    server.ask(*acl_rule(user))
    monkeypatch.setenv("HEADRACE_REDIS_URL", f"redis://{user}:SECRET@127.0.0.1:{server.port}")
    monkeypatch.setattr(survey, "read_nodes", lambda _: ((), ""))
    return checks(capsys)


def test_a_store_that_the_replicas_user_may_not_ask_is_not_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_valkey() as server:
        code, found = store(server, "replica", monkeypatch, capsys)
    assert code == 0 and found["store"]["verdict"] == "warn"
    assert found["store"]["found"].startswith("not allowed to ask: ") and "info" in found["store"]["found"]
    assert "+info +time" in found["store"]["advice"]


def test_the_gateways_user_may_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_valkey() as server:
        _, found = store(server, "gateway", monkeypatch, capsys)
    assert "store" not in found and "store policy" in found


def test_a_store_that_is_away_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(survey, "read_nodes", lambda _: ((), ""))
    code, found = checks(capsys)
    assert code == 1 and found["store"]["verdict"] == "fail"
