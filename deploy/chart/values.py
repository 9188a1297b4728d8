"""The chart's values files, out of the model catalogue: what `headrace plan --helm` prints, and a little beside it.

One file for each shape that we name; each renders alone. What an operator has to have is the Secret and the store
that the file names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.models import report
from cluster.models.catalogue import find
from cluster.models.cpu import on_cpu
from cluster.models.gpus import BY_NAME
from cluster.models.planner import Plan, Question, plan
from deploy.chart.comments import CHART

LAPTOP_GIB = 8.0
LAPTOP_CPUS = 2


class DoesNotFit(Exception):
    """A shape below does not hold its model any more: the message says why."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`name` completes values-NAME.yaml; `gpus` are those of all replicas; `hint` is for the operator."""

    name: str
    model: str
    gpu: str
    gpus: int
    hint: str = ""
    context: int | None = None


TWO_CLUSTERS = (
    "An upgrade of the cluster takes as many GPUs again while it lasts; see UPGRADE.md for the way without."
)
SHAPES = (
    # At the whole context two L4 would share a replica over PCIe.
    Shape("gpt-oss-20b-l4", "gpt-oss-20b", "l4", 2, context=32768),
    Shape("gpt-oss-20b-l40s", "gpt-oss-20b", "l40s", 2),
    Shape("gpt-oss-20b-a100", "gpt-oss-20b", "a100-80", 2),
    Shape("gpt-oss-20b-h100", "gpt-oss-20b", "h100", 2),
    Shape("gpt-oss-120b-h100", "gpt-oss-120b", "h100", 4),
    Shape("gpt-oss-120b-h200", "gpt-oss-120b", "h200", 2),
    Shape("gpt-oss-120b-b200", "gpt-oss-120b", "b200", 2),
    Shape("gpt-oss-120b-a100", "gpt-oss-120b", "a100-80", 4),
    Shape("deepseek-r1-8xh200", "deepseek-r1", "h200", 8, TWO_CLUSTERS),
    Shape("deepseek-r1-2x8xh100", "deepseek-r1", "h100", 16, TWO_CLUSTERS),
)

# Names that the chart's README makes the Secret and the store by.
PRODUCTION: dict[str, Any] = {
    "secrets": {"existingSecret": {"name": "headrace"}},
    "store": {
        "mode": "external",
        "external": {
            "engineUrlSecret": {"name": "headrace", "key": "redis-url-replica"},
            "gcs": {"address": "valkey:6379", "username": "ray", "passwordSecret": {"name": "headrace"}},
        },
    },
}

# One pod of each, without GPUs, and nothing to prepare.
LAPTOP: dict[str, Any] = {
    "images": {"engine": {"repository": "headrace/engine-cpu"}},
    "secrets": {"generate": True},
    "store": {
        "mode": "bundled",
        "gcsFaultTolerance": False,
        "bundled": {"persistence": {"size": "1Gi"}},
    },
    "gateway": {
        "replicas": 1,
        "settings": {"default_max_tokens": 512},
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
    },
}
LAPTOP_HEAD = {"requests": {"cpu": "500m", "memory": "1536Mi"}, "limits": {"memory": "3Gi"}}


def documents() -> Iterator[tuple[Path, str]]:
    """Each file with its whole text. Raises DoesNotFit."""
    yield path("laptop"), laptop()
    for shape in SHAPES:
        yield path(shape.name), on_gpus(shape)


def path(name: str) -> Path:
    return CHART / f"values-{name}.yaml"


def write(check: bool) -> list[str]:
    """Write the files, or with `check` name those that differ from what would be written."""
    stale = [(each, text) for each, text in documents() if not each.exists() or each.read_text() != text]
    if not check:
        for each, text in stale:
            each.write_text(text)
    return [each.name for each, _ in stale]


def on_gpus(shape: Shape) -> str:
    made = planned(shape)
    question = f"--model {shape.model} --gpu {shape.gpu} --gpus {shape.gpus}"
    question += f" --context {shape.context}" if shape.context else ""
    lines = [
        f"{shape.model} on {shape.gpus} x {shape.gpu}: {layout(made)}.",
        *[f"{note[:1].upper()}{note[1:]}." for note in made.notes],
        shape.hint,
        f"Out of the catalogue: `headrace plan {question} --helm`, by `python -m deploy.chart values`.",
        "Needs a Secret `headrace` and a Valkey or Redis at valkey:6379: the chart's README makes both.",
    ]
    return written(lines, {**report.values(made), **PRODUCTION})


def planned(shape: Shape) -> Plan:
    made = plan(Question(find(shape.model), BY_NAME[shape.gpu], shape.gpus, shape.context))
    if not isinstance(made, Plan) or made.idle:
        raise DoesNotFit(f"values-{shape.name}.yaml: {shape.gpus} x {shape.gpu} do not hold {shape.model}")
    return made


def layout(made: Plan) -> str:
    chosen = made.layout
    tokens = f"{chosen.sequences} sequences of {chosen.arguments.max_model_len:,} tokens at once"
    count = f"{chosen.replicas} replica{'s' * (chosen.replicas > 1)}"
    return f"{count} of {chosen.name}, each with room for {tokens}"


def laptop() -> str:
    fit = on_cpu(find("smollm2-135m"), LAPTOP_GIB)
    if fit.why_not:
        raise DoesNotFit(f"values-laptop.yaml: {fit.why_not}")
    values = report.cpu_values(fit, LAPTOP_CPUS)
    entry = values["models"][fit.model.name]
    # Made from a package in the image: nothing is fetched.
    entry["checkpoint"] = {"source": "made", "size": entry["checkpoint"]["size"]}
    entry["resources"]["head"] = LAPTOP_HEAD
    lines = [
        f"A trial without GPUs: {fit.model.name} on {LAPTOP_CPUS} cores, with a store and secrets of its own.",
        "Needs KubeRay, 4 cores and 12 GiB in all. By `python -m deploy.chart values`.",
    ]
    return written(lines, {**values, **LAPTOP})


def written(lines: list[str], values: Mapping[str, Any]) -> str:
    return "".join(f"# {line}\n" for line in lines if line) + report.yaml(values)
