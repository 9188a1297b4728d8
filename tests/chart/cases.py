"""What is rendered: each values file of the chart, and each of `values/`, those over `production.yaml`."""

from pathlib import Path

from deploy.chart.comments import CHART
from tests.chart.helm import VERSIONS, Question

HERE = Path(__file__).parent / "values"
PRODUCTION = HERE / "production.yaml"
ALONE = {"trial", "production"}

SHIPPED = {path.stem: (path,) for path in sorted(CHART.glob("values-*.yaml"))}
OURS = {
    path.stem: (path,) if path.stem in ALONE else (PRODUCTION, path) for path in sorted(HERE.glob("*.yaml"))
}
CASES = SHIPPED | OURS


def question(case: str, version: str = VERSIONS[1], **more: object) -> Question:
    """The question of a case; those of the chart's values files have what an operator adds."""
    return Question(CASES[case], version=version, **more)  # type: ignore[arg-type]
