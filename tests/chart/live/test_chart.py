"""The chart itself, by the real helm against an API server: installed, changed, broken, rolled back, asked, removed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.chart.comments import CHART
from tests.chart.apiserver.server import ApiServer
from tests.chart.live.command import Said, headrace
from tests.chart.live.shell import Shell

NAMESPACE = "inference"
RELEASE = "headrace"
ENGINE = "headrace-tiny"
GATEWAY = "headrace-gateway"
ANYWHERE = '[{"ipBlock":{"cidr":"10.0.0.0/8"}}]'
WAITING = ("--wait", "--timeout", "30s")
VALUES = {
    "secrets": {"generate": True},
    "store": {"mode": "bundled"},
    "models": {"tiny": {"engine": "sim", "checkpoint": {"source": "made"}}},
    "gateway": {"settings": {"max_turns": 64}},
}
engines = pytest.mark.skipif(
    not any(CHART.glob("templates/engine/*.yaml")), reason="the chart has no engines of its own yet"
)


@pytest.fixture
def values(tmp_path: Path) -> str:
    (path := tmp_path / "values.json").write_text(json.dumps(VALUES))
    return str(path)


@pytest.fixture
def release(shell: Shell, values: str) -> Shell:
    """The owner's shell, with a release of the chart; arguments as in every test."""
    shell.helm("install", RELEASE, str(CHART), *where(values), "--create-namespace", *WAITING)
    return shell


def where(values: str) -> tuple[str, ...]:
    return ("--namespace", NAMESPACE, "--values", values)


def generations(api: ApiServer) -> dict[tuple[str, str], int]:
    kinds = ("Deployment", "StatefulSet", "RayService", "Service", "PodDisruptionBudget", "NetworkPolicy")
    items = [(kind, each) for kind in kinds for each in api.store.every(kind, NAMESPACE)]
    return {(kind, each["metadata"]["name"]): each["metadata"]["generation"] for kind, each in items}


def changed(before: dict[tuple[str, str], int], after: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    return {one for one in before | after if before.get(one) != after.get(one)}


def test_an_install_is_accepted_strictly_and_gets_ready(api: ApiServer, release: Shell) -> None:
    kinds = {kind for kind, _ in generations(api)}
    assert {"Deployment", "StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= kinds
    assert all(
        pod["status"]["phase"] in ("Running", "Succeeded") for pod in api.store.every("Pod", NAMESPACE)
    )


def test_an_upgrade_with_the_same_values_touches_nothing(api: ApiServer, release: Shell, values: str) -> None:
    before, secrets = generations(api), api.store.every("Secret", NAMESPACE)
    release.helm("upgrade", RELEASE, str(CHART), *where(values), *WAITING)
    assert changed(before, generations(api)) == set()
    kept = {
        each["metadata"]["name"]: each["data"] for each in secrets if each["type"] != "helm.sh/release.v1"
    }
    assert kept and all(
        api.store.get("Secret", NAMESPACE, name)["data"] == data for name, data in kept.items()
    )


@engines
def test_another_version_of_the_chart_starts_no_second_ray_cluster(
    api: ApiServer, release: Shell, values: str, tmp_path: Path
) -> None:
    shutil.copytree(CHART, tmp_path / "next")
    about = (tmp_path / "next" / "Chart.yaml").read_text().splitlines()
    bumped = ["version: 9.9.9" if line.startswith("version:") else line for line in about]
    (tmp_path / "next" / "Chart.yaml").write_text("\n".join(bumped))
    before = generations(api)
    release.helm("upgrade", RELEASE, str(tmp_path / "next"), *where(values), *WAITING)
    assert ("RayService", ENGINE) not in changed(before, generations(api))
    assert len(api.store.every("RayCluster", NAMESPACE)) == 1


def test_a_setting_of_the_gateway_rolls_the_gateway_only(api: ApiServer, release: Shell, values: str) -> None:
    before = generations(api)
    release.helm(
        "upgrade", RELEASE, str(CHART), *where(values), "--set", "gateway.settings.max_turns=32", *WAITING
    )
    assert changed(before, generations(api)) == {("Deployment", GATEWAY)}
    assert "max_turns = 32" in api.store.get("ConfigMap", NAMESPACE, GATEWAY)["data"]["gateway.toml"]


@engines
def test_an_engine_s_change_makes_a_second_cluster_beside_the_first(
    api: ApiServer, release: Shell, values: str
) -> None:
    release.helm("upgrade", RELEASE, str(CHART), *where(values), "--set", "images.engine.tag=next", *WAITING)
    assert len(api.store.every("RayCluster", NAMESPACE)) == 2


def test_a_gateway_that_does_not_start_is_rolled_back(api: ApiServer, release: Shell, values: str) -> None:
    image = ("--set", "images.gateway.tag=broken")
    done = release.try_helm(
        "upgrade", RELEASE, str(CHART), *where(values), *image, "--rollback-on-failure", *WAITING
    )
    assert done.code == 1 and "rolled back" in done.err
    containers = api.store.get("Deployment", NAMESPACE, GATEWAY)["spec"]["template"]["spec"]["containers"]
    assert "broken" not in containers[0]["image"]


def test_an_autoscaler_of_the_gateway_keeps_what_it_set(api: ApiServer, shell: Shell, values: str) -> None:
    store = "store.mode=external,store.external.urlSecret.name=store,store.gcsFaultTolerance=false"
    scaled = (
        "--set",
        f"gateway.autoscaling.enabled=true,{store}",
        "--set-json",
        f"networkPolicy.store.to={ANYWHERE}",
    )
    shell.helm("install", RELEASE, str(CHART), *where(values), *scaled, "--create-namespace", *WAITING)
    api.alive.scale(NAMESPACE, GATEWAY, 7)
    shell.helm(
        "upgrade",
        RELEASE,
        str(CHART),
        *where(values),
        *scaled,
        "--set",
        "gateway.minReadySeconds=6",
        *WAITING,
    )
    assert api.store.get("Deployment", NAMESPACE, GATEWAY)["spec"]["replicas"] == 7


def test_the_test_hook_runs(release: Shell) -> None:
    assert "Phase:          Succeeded" in release.helm(
        "test", RELEASE, "--namespace", NAMESPACE, "--timeout", "30s"
    )


def test_what_a_removal_leaves_is_what_is_to_be_kept(api: ApiServer, release: Shell) -> None:
    release.helm("uninstall", RELEASE, "--namespace", NAMESPACE, *WAITING)
    left = [each for kind in api.kinds.all if kind.namespaced for each in api.store.every(kind, NAMESPACE)]
    kept = "helm.sh/resource-policy"
    others = [each for each in left if each["metadata"].get("annotations", {}).get(kept) != "keep"]
    assert [(each["kind"], each["metadata"]["name"]) for each in others] == []
    assert "Secret" in {each["kind"] for each in left}


@engines
def test_the_command_sees_the_release(
    api: ApiServer, release: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., Said] = headrace(capsys)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(namespace=NAMESPACE)))
    said = run("cluster", "status", "--json")
    found = json.loads(said.out)
    assert said.code == 0, found["trouble"]
    assert [row["model"] for row in found["models"]] == ["tiny"]
    assert {row["component"] for row in found["pods"]} == {"gateway", "engine", "store"}
    assert "helm upgrade headrace" in run("cluster", "upgrade", "tiny", "--revision", "x").out
