"""The real helm: what it renders of the chart, kept per question, for each of its answers costs a third of a second."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy.chart.comments import CHART

HERE = Path(__file__).parent
VERSIONS = ("1.31", "1.34", "1.37")
# Operators of a full cluster: what they serve decides what the chart may render.
APIS = (
    "ray.io/v1/RayService",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "keda.sh/v1alpha1/ScaledObject",
    "cert-manager.io/v1/Certificate",
    "gateway.networking.k8s.io/v1/GRPCRoute",
    "gateway.networking.k8s.io/v1/HTTPRoute",
)
NAMESPACE = "inference"
Object = dict[str, Any]


class HelmRefused(Exception):
    """helm's own words."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to render: value files, further values as `--set-json` takes them, and where."""

    files: tuple[Path, ...] = ()
    sets: tuple[str, ...] = ()
    version: str = "1.34"
    release: str = "headrace"
    apis: tuple[str, ...] = APIS
    flags: tuple[str, ...] = ()
    chart: Path = CHART


def binary() -> str:
    beside = Path(sys.executable).parent / "helm"
    found = str(beside) if beside.exists() else shutil.which("helm")
    assert found, "no helm: deploy/install --dev puts it into .venv/bin"
    return found


def helm(*arguments: str) -> str:
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise HelmRefused(done.stderr + done.stdout)
    return done.stdout


@cache
def rendered(question: Question) -> str:
    """The manifests as text. Raises HelmRefused."""
    return helm(
        "template",
        question.release,
        str(question.chart),
        "--namespace",
        NAMESPACE,
        "--kube-version",
        f"{question.version}.0",
        *_repeated(
            "--api-versions", [form for api in question.apis for form in (api, api.rpartition("/")[0])]
        ),
        *_values(question),
        *question.flags,
    )


def lint(question: Question) -> str:
    version = f"{question.version}.0"
    return helm("lint", str(question.chart), "--strict", "--kube-version", version, *_values(question))


def _values(question: Question) -> list[str]:
    return [
        *_repeated("--values", [str(path) for path in question.files]),
        *_repeated("--set-json", question.sets),
    ]


def _repeated(flag: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (flag, value)]


@cache
def _parsed(question: Question) -> str:
    documents = yaml.load_all(rendered(question), Loader=OnceLoader)
    return json.dumps([each for each in documents if each])


class OnceLoader(yaml.CSafeLoader):
    """YAML in which a key stands once: helm renders it twice without a word, an API server refuses it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        assert not twice, f"{twice} stand twice in a mapping at line {node.start_mark.line + 1}"
        return super().construct_mapping(node, deep)


def objects(question: Question) -> list[Object]:
    """The manifests, the caller's own copy."""
    return list(json.loads(_parsed(question)))
