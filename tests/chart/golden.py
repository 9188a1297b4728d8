"""Manifests of the chart's values files as committed. `python -m tests.chart.golden` writes them again."""

import sys
from pathlib import Path

import yaml

from tests.chart.cases import SHIPPED, question
from tests.chart.helm import NAMESPACE
from tests.chart.manifests import manifests

FOLDER = Path(__file__).parents[1] / "golden" / "chart"
DRAWN = "drawn at installation"


class Dumper(yaml.SafeDumper):
    """With the documents inside the objects as lines, for who reads what changed in them."""


Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style="|" if "\n" in value else None
    ),
)


def text(case: str) -> str:
    """The objects by kind and name, keys sorted, drawn secrets left out: a moved template is no difference."""
    objects = manifests(question(case)).objects
    for item in objects:
        if item["kind"] == "Secret":
            item["data"] = dict.fromkeys(item["data"], DRAWN)
        if item["metadata"].get("namespace") == NAMESPACE:
            del item["metadata"]["namespace"]
    objects.sort(key=lambda item: (item["kind"], item["metadata"]["name"]))
    return yaml.dump_all(objects, Dumper=Dumper, width=110, default_flow_style=False)


def path(case: str) -> Path:
    return FOLDER / f"{case}.yaml"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in set(FOLDER.glob("*.yaml")) - {path(case) for case in SHIPPED}:
        stale.unlink()
    for case in SHIPPED:
        path(case).write_text(text(case))
    sys.stdout.write(f"{len(SHIPPED)} manifests in {FOLDER}\n")


if __name__ == "__main__":
    main()
