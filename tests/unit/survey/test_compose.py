"""The compose file for two machines, as far as it can be held without Docker."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.serving.settings import DeploySettings
from services.cli.main import main
from services.gateway.settings import GatewaySettings

FOLDER = Path(__file__).parents[3] / "deploy/compose"
VARIABLE = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")
SECRETS = {"RAY_TOKEN", "LINK_TOKEN", "KEY_PEPPER", "MASTER_KEY", "STORE_PASSWORD"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"])


def variables() -> dict[str, str]:
    lines = (FOLDER / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_variable_is_in_the_example_and_secrets_are_left_empty() -> None:
    used = {found[1] for found in VARIABLE.finditer((FOLDER / "compose.yaml").read_text())}
    assert used == set(variables())
    assert {name for name, value in variables().items() if not value} == SECRETS


def test_each_machine_runs_a_ray_node_and_a_gateway(services: dict[str, Any]) -> None:
    by_machine = {
        machine: {name for name, each in services.items() if machine in each["profiles"]}
        for machine in ("first", "second")
    }
    assert by_machine["first"] == {"store", "ray-head", "model", "gateway"}
    assert by_machine["second"] == {"ray-worker", "gateway"}


def test_the_engine_is_told_what_a_deployment_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads((FOLDER / "engine.json").read_text())
    document["settings"] |= {"link_token": "t", "redis_url": "redis://x"}
    settings = DeploySettings.model_validate(document).settings
    assert settings.vllm is not None
    assert (settings.vllm.nodes, settings.vllm.shards, settings.num_gpus) == (2, 2, 1)


def test_the_engine_is_laid_out_as_the_planner_says(capsys: pytest.CaptureFixture[str]) -> None:
    [asked] = re.findall(r"headrace (plan .*?)`", (FOLDER / "README.md").read_text(), re.DOTALL)
    words = asked.replace("NAME", "gpt-oss-120b").replace("KIND", "l40s").split()
    with pytest.raises(SystemExit, match="0"):
        main(words)
    vllm = json.loads((FOLDER / "engine.json").read_text())["settings"]["vllm"]
    assert vllm.pop("checkpoint") == "/models/gpt-oss-120b"
    assert vllm.items() <= json.loads(capsys.readouterr().out)["engine"].items()


def test_the_gateway_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch, services: dict[str, Any]) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", str(FOLDER / "gateway.toml"))
    given = {name: "x" for name in services["gateway"]["environment"] if name != "HEADRACE_CONFIG"}
    given |= {"HEADRACE_REDIS_URL": "redis://:p@192.0.2.10:6379/0", "HEADRACE_MASTER_KEY": "A" * 43 + "="}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings()  # type: ignore[call-arg]
    assert list(settings.models) == [json.loads((FOLDER / "engine.json").read_text())["settings"]["model"]]
    grace = int(services["gateway"]["stop_grace_period"].rstrip("s"))
    assert grace >= settings.drain_grace + settings.drain_delay + 10


def test_both_rays_are_one_cluster(services: dict[str, Any]) -> None:
    head, worker = (shlex.split(services[name]["command"]) for name in ("ray-head", "ray-worker"))
    port = next(word.partition("=")[2] for word in head if word.startswith("--port="))
    assert f"--address=${{FIRST}}:{port}" in worker
    assert services["ray-head"]["environment"] == services["ray-worker"]["environment"]


def test_no_secret_stands_in_a_command_line_that_other_users_see(services: dict[str, Any]) -> None:
    for each in services.values():
        words = str(each.get("command")).replace("$$", "")
        assert not any(f"${{{secret}}}" in words for secret in SECRETS)


def test_the_store_forgets_nothing(services: dict[str, Any]) -> None:
    command = services["store"]["command"][-1]
    assert "appendonly yes" in command and "maxmemory-policy noeviction" in command
    assert tomllib.loads((FOLDER / "gateway.toml").read_text())["listen"].endswith(":50051")
