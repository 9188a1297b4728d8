"""What is rendered: each values file of the chart, and each of `values/`, those over `production.yaml`."""

from pathlib import Path

import yaml

from deploy.chart.comments import CHART
from tests.chart.helm import VERSIONS, Question

HERE = Path(__file__).parent
PRODUCTION = HERE / "values" / "production.yaml"
ALONE = {"trial", "production"}


def shipped(path: Path) -> tuple[Path, ...]:
    """A values file of the chart, with what an operator adds; those for trials bring it themselves."""
    trial = yaml.safe_load(path.read_text()).get("secrets", {}).get("generate")
    return (path,) if trial else (HERE / "operator.yaml", path)


SHIPPED = {path.stem: shipped(path) for path in sorted(CHART.glob("values-*.yaml"))}
OURS = {
    path.stem: (path,) if path.stem in ALONE else (PRODUCTION, path)
    for path in sorted((HERE / "values").glob("*.yaml"))
}
CASES = SHIPPED | OURS


def question(case: str, version: str = VERSIONS[1], *sets: str, release: str = "headrace") -> Question:
    return Question(CASES[case], sets, version, release)
