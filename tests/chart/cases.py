"""What is rendered: each values file of the chart by itself, and each of `values/`, those over `production.yaml`."""

from pathlib import Path

from deploy.chart.comments import CHART
from tests.chart.helm import VERSIONS, Question

HERE = Path(__file__).parent
PRODUCTION = HERE / "values" / "production.yaml"
ALONE = {"trial", "production"}


SHIPPED = {path.stem: (path,) for path in sorted(CHART.glob("values-*.yaml"))}
OURS = {
    path.stem: (path,) if path.stem in ALONE else (PRODUCTION, path)
    for path in sorted((HERE / "values").glob("*.yaml"))
}
CASES = SHIPPED | OURS


def question(case: str, version: str = VERSIONS[1], *sets: str, release: str = "headrace") -> Question:
    return Question(CASES[case], sets, version, release)
