"""An upgrade that does not mean the engines starts no second cluster, and changes nothing that cannot be changed."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from deploy.chart.comments import CHART
from tests.chart.cases import CASES, question
from tests.chart.hash import digest
from tests.chart.helm import Object, Question
from tests.chart.manifests import Manifests, manifests

MODEL = "models.gpt-oss-120b"
NO_NEW_CLUSTER = [
    "gateway.settings.max_turns=99",
    "gateway.settings.max_turn_seconds=1200",
    "gateway.replicas=7",
    "gateway.drain.graceSeconds=300",
    'gateway.resources.limits.memory="8Gi"',
    'images.gateway.tag="9.9.9"',
    'commonLabels={"team": "other"}',
    'commonAnnotations={"note": "other"}',
    "networkPolicy.enabled=false",
    "monitoring.podMonitor.enabled=true",
    "tests.enabled=false",
    'routes.grpc={"enabled": true, "parentRefs": [{"name": "edge"}]}',
    'tracing.endpoint="http://collector:4317"',
    f"{MODEL}.replicas=5",
    f"{MODEL}.capacity=300",
    f"{MODEL}.maxNumSeqs=64",
    f"{MODEL}.maxModelLen=65536",
    f'{MODEL}.checkpoint.revision="2"',
    f"{MODEL}.upgrade.deletionDelaySeconds=3600",
    f'{MODEL}.upgrade.strategy="None"',
    f'{MODEL}.tolerations=[{{"key": "x", "operator": "Exists"}}]',
    f"{MODEL}.pdb.enabled=false",
]
NEW_CLUSTER = [
    'images.engine.tag="9.9.9"',
    f'{MODEL}.checkpoint.path="openai/gpt-oss-120b-v2"',
    f'{MODEL}.resources.worker.limits.memory="200Gi"',
    f'{MODEL}.nodeSelector={{"pool": "b"}}',
    f"{MODEL}.drainGraceSeconds=200",
    f'{MODEL}.extraEnv=[{{"name": "A", "value": "b"}}]',
    f'{MODEL}.autoscaling={{"enabled": true, "maxReplicas": 4}}',
]


def hashes(asked: Question) -> dict[str, str]:
    return {item["metadata"]["name"]: digest(item) for item in manifests(asked).of("RayService")}


@pytest.mark.parametrize("change", NO_NEW_CLUSTER)
def test_it_starts_no_second_cluster(change: str) -> None:
    assert hashes(question("production", "1.34", change)) == hashes(question("production"))


@pytest.mark.parametrize("change", NEW_CLUSTER)
def test_it_does(change: str) -> None:
    assert hashes(question("production", "1.34", change)) != hashes(question("production"))


def test_another_commit_of_a_fetched_model_starts_one() -> None:
    other = f'{MODEL}.checkpoint.revision="0123456789abcdef0123456789abcdef01234567"'
    assert hashes(question("hub", "1.34", other)) != hashes(question("hub"))


def test_bounds_of_a_scaled_model_change_in_place() -> None:
    other = f"{MODEL}.autoscaling.maxReplicas=9"
    assert hashes(question("scaling", "1.34", other)) == hashes(question("scaling"))


def test_a_model_that_comes_or_goes_leaves_the_others() -> None:
    several, one = hashes(question("several")), hashes(question("production"))
    assert several.keys() > one.keys()
    assert several.items() >= one.items()


@pytest.fixture(scope="module")
def bumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version of the chart, that changes nothing but its number."""
    chart = tmp_path_factory.mktemp("bumped") / "headrace"
    shutil.copytree(CHART, chart)
    text = (chart / "Chart.yaml").read_text()
    version = yaml.safe_load(text)["version"]
    (chart / "Chart.yaml").write_text(text.replace(f"version: {version}\n", "version: 9.9.9\n", 1))
    return chart


@pytest.mark.parametrize("case", CASES)
def test_the_next_version_of_the_chart_starts_no_second_cluster(case: str, bumped: Path) -> None:
    asked = question(case)
    assert hashes(Question(asked.files, chart=bumped)) == hashes(asked)


@pytest.mark.parametrize("case", CASES)
def test_the_next_version_of_the_chart_changes_labels_alone(case: str, bumped: Path) -> None:
    asked = question(case)
    old, new = manifests(asked), manifests(Question(asked.files, chart=bumped))
    for item in (*old.objects, *new.objects):
        item["metadata"].get("labels", {}).pop("helm.sh/chart", None)
    drawn = [[each for each in m.objects if each["kind"] != "Secret"] for m in (old, new)]
    assert drawn[0] == drawn[1]


# --- what an API server does not let change

FIXED: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"),
    "Service": ("clusterIP",),
    "PodDisruptionBudget": (),
    "RayService": ("managedBy",),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeName"),
}


def fixed(m: Manifests) -> dict[tuple[str, str], Object]:
    return {
        (kind, item["metadata"]["name"]): {key: item["spec"].get(key) for key in keys}
        for kind, keys in FIXED.items()
        for item in m.of(kind)
    }


OTHER_VALUES = [
    "gateway.replicas=7",
    'commonLabels={"team": "other"}',
    'gateway.podLabels={"a": "b"}',
    'images.store.tag="9.9.9"',
    'images.gateway.tag="9.9.9"',
    'store.bundled.maxmemory="512mb"',
    'store.bundled.resources={"limits": {"memory": "4Gi"}}',
    'gateway.service.type="ClusterIP"',
    "gateway.topologySpread.enabled=false",
]


@pytest.mark.parametrize("change", OTHER_VALUES)
def test_nothing_changes_that_cannot(change: str, bumped: Path) -> None:
    asked = question("trial")
    after = Question(asked.files, (change,), chart=bumped, flags=("--is-upgrade",))
    assert fixed(manifests(after)) == fixed(manifests(asked))


# --- what would make a rendering depend on when, or how often, it is done


def test_no_template_of_the_engines_asks_when_or_how_often() -> None:
    asked = (
        "Release.Revision",
        "Release.IsUpgrade",
        "Release.IsInstall",
        "now",
        "rand",
        "uuidv4",
        "lookup",
        "sha256sum",
        "AppVersion",
    )
    for path in sorted((CHART / "templates" / "engine").iterdir()):
        code = [line for line in path.read_text().splitlines() if "{{" in line]
        found = {word for word in asked for line in code if f"{word} " in line or f".{word}" in line}
        assert not found, f"{path.name} uses {found}: a second cluster would start for nothing"


# --- the rule itself


def test_what_kuberay_overlooks_is_overlooked_and_nothing_else() -> None:
    service = manifests(question("production")).of("RayService")[0]
    before, workers = digest(service), service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    workers |= {
        "replicas": 3,
        "minReplicas": 1,
        "maxReplicas": 9,
        "scaleStrategy": {"workersToDelete": ["x"]},
    }
    workers["template"]["spec"]["tolerations"] = []
    del workers["scaleStrategy"]
    assert digest(service) == before
    workers["template"]["metadata"].setdefault("annotations", {})["a"] = "b"
    assert digest(service) != before
