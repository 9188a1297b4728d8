"""The command as a user meets it: help, exit codes, one line for a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import exits
from services.cli.main import main
from services.cli.settings import MASK, effective
from services.cli.where import find

ROOT = Path(__file__).parents[3]
HEAVY = ("ray", "vllm", "torch", "grpc", "redis", "pydantic", "huggingface_hub", "kubernetes")


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ENDPOINT",
        "API_KEY",
        "API_KEY_FILE",
        "CONFIG",
        "CA",
        "REDIS_URL",
        "KEY_PEPPER",
        "LINK_TOKEN",
    ):
        monkeypatch.delenv(f"HEADRACE_{name}", raising=False)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    for command in (
        "up",
        "down",
        "status",
        "chat",
        "models",
        "plan",
        "fetch",
        "cluster",
        "config",
        "doctor",
        "keys",
        "sessions",
        "turns",
        "drill",
    ):
        assert f"\n  {command} " in said
    assert "3 endpoint" in " ".join(said.split())


def test_help_loads_nothing_heavy() -> None:
    program = f"""
import sys
from services.cli.main import main
try: main(["--help"])
except SystemExit: pass
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nonsense",), exits.USAGE, "nonsense"),
        (("chat", "--max-tokens", "many", "hi"), exits.USAGE, "--max-tokens"),
        (("up", "--engine", "gears"), exits.USAGE, "gears"),
        (("up", "--model", "nonsense"), exits.USAGE, "nonsense"),
        (("up", "--port", "-4"), exits.USAGE, "--port"),
        (("chat", "hi"), exits.UNREACHABLE, "no endpoint is known"),
        (("chat", "--endpoint", "127.0.0.1:9", "hi"), exits.USAGE, "no API key is known"),
        (("models", "--endpoint", "h:9", "--key-file", "/nowhere"), exits.USAGE, "/nowhere"),
        (("status",), exits.UNREACHABLE, "no endpoint is known"),
        (("drill",), exits.UNREACHABLE, "no stack is up"),
        (("drill", "--streams", "0"), exits.USAGE, "--streams"),
        (("turns", "get"), exits.USAGE, "id"),
        (("keys", "list"), exits.USAGE, "key_pepper"),
        (("sessions", "show"), exits.USAGE, "id"),
    ],
)
def test_a_mistake_costs_one_clear_message(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_an_endpoint_that_does_not_answer_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_API_KEY", "hr_x")
    assert run("models", "--endpoint", "127.0.0.1:9") == exits.UNREACHABLE
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_down_with_nothing_up_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("down") == 0
    assert capsys.readouterr().out == "Nothing was up.\n"


def test_the_local_key_is_not_sent_to_another_endpoint(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("hr_local")
    with pytest.raises(exits.CliError, match="no API key is known"):
        find("elsewhere:50051", None, {"HEADRACE_HOME": str(tmp_path)})


def test_the_key_stays_out_of_repr() -> None:
    target = find(
        "https://models.example:443", None, {"HEADRACE_API_KEY": "hr_secret", "HEADRACE_HOME": "/nowhere"}
    )
    assert "hr_secret" not in repr(target)
    assert (target.address, target.secure, target.exposed) == ("models.example:443", True, False)


def test_config_names_origins_and_masks_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('redis_url = "redis://:hunter2@127.0.0.1:1/0"\nprocesses = 3\n')
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))
    monkeypatch.setenv("HEADRACE_PROCESSES", "2")
    monkeypatch.setenv("HEADRACE_MASTER_KEY", "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMnh4eHg=")
    assert run("config", "--json") == 0
    said = capsys.readouterr().out
    shown = json.loads(said)
    assert "hunter2" not in said and "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMnh4eHg=" not in said
    assert (shown["redis_url"]["value"], shown["redis_url"]["origin"]) == (MASK, f"file {file}")
    assert (shown["processes"]["value"], shown["processes"]["origin"]) == ("2", "env HEADRACE_PROCESSES")
    assert shown["drain_grace"]["origin"] == "default"
    assert shown["key_pepper"]["origin"] == "missing"
    assert effective().plain("redis_url") == "redis://:hunter2@127.0.0.1:1/0"


@pytest.mark.parametrize("text", ["speed = 1", "listen = ", "\x00"])
def test_a_wrong_file_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))
    assert run("config") == exits.USAGE


def test_doctor_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = run("doctor", "--json", "--port", "0")
    checks = json.loads(capsys.readouterr().out)
    assert {"name", "verdict", "found", "advice"} == set(checks[0])
    assert code == int(any(check["verdict"] == "fail" for check in checks))


def run_cli(tmp_path: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    argv = [sys.executable, "-m", "services.cli", *words]
    return subprocess.run(
        argv, env=kept | {"HEADRACE_HOME": str(tmp_path)} | env, cwd=ROOT, text=True, capture_output=True
    )


@pytest.mark.parametrize("damage", ["", "{", "null", "[]", '{"id": 1}', '{"processes": [{"pid": "x"}]}'])
@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path, command: str, damage: str) -> None:
    (tmp_path / "stack.json").write_text(damage)
    done = run_cli(tmp_path, command)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert str(tmp_path / "stack.json") in done.stderr and "move it away" in done.stderr


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli(tmp_path / "file" / "home", "up", "--engine", "sim")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "HEADRACE_HOME" in done.stderr


def test_config_refuses_what_a_gateway_would_refuse(tmp_path: Path) -> None:
    unknown = run_cli(tmp_path, "config", HEADRACE_FOO="1")
    assert unknown.returncode == 2 and "HEADRACE_FOO" in unknown.stderr
    wrong = run_cli(tmp_path, "config", HEADRACE_MAX_TURNS="abc")
    assert wrong.returncode == 2 and "max_turns" in wrong.stderr


@pytest.mark.parametrize("days", ["nan", "-1", "0", "inf", "1e300"])
def test_days_of_a_key_are_bounded(tmp_path: Path, days: str) -> None:
    done = run_cli(tmp_path, "keys", "create", "--tenant", "a", f"--days={days}")
    assert done.returncode == 2 and "--days" in done.stderr
