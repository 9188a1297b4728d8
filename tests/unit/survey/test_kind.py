"""The script for a kind cluster, as far as it can be held without Docker."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def commands(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """What the script would run."""
    env = {"PATH": os.environ["PATH"], "DRY_RUN": "1", **variables}
    return subprocess.run(["deploy/kind/up", *words], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("engine", ["sim", "smollm2"])
def test_every_file_that_the_commands_name_is_there(engine: str) -> None:
    done = commands(engine, KUBERAY_CHART="kuberay.tgz")
    assert done.returncode == 0, done.stderr
    named = re.findall(r"(?:--values|--file|--config) (\S+)", done.stdout)
    assert len(named) >= 4
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert ("values-sim.yaml" in done.stdout) == (engine == "sim")


def test_what_is_loaded_is_what_the_values_ask_for() -> None:
    loaded = re.findall(r"kind load .*", commands("sim", KUBERAY_CHART="kuberay.tgz").stdout)[0].split()[-2:]
    values = (ROOT / "deploy/kind/values.yaml").read_text()
    for image in loaded:
        repository, _, tag = image.partition(":")
        assert f"repository: {repository}, tag: {tag}, pullPolicy: Never" in values


def test_nothing_happens_to_another_cluster_than_its_own() -> None:
    done = commands("sim", KUBERAY_CHART="kuberay.tgz").stdout
    asked = re.findall(r"^\+ (?:helm|kubectl) (.*)$", done, re.MULTILINE)
    assert len(asked) == 4
    assert [words for words in asked if not re.match(r"--(?:kube-)?context kind-headrace ", words)] == []


def test_an_operator_without_the_chart_of_kuberay_is_told_what_to_set() -> None:
    done = commands("sim")
    assert (done.returncode, "KUBERAY_REPO" in done.stderr) == (2, True)


def test_an_unknown_word_is_refused() -> None:
    assert "usage:" in commands("typo").stderr
