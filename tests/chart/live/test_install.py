"""The life of a release, by the real helm: server-side apply, waiting, failing, rolling back, removal."""

import json
from pathlib import Path

import pytest

from tests.chart.apiserver.server import ApiServer
from tests.chart.live.shell import SMALL, Shell

CHART = str(SMALL)
WAITING = ("--wait", "--timeout", "20s")


@pytest.fixture
def installed(shell: Shell) -> Shell:
    shell.helm("install", "one", CHART, *WAITING)
    return shell


def image(api: ApiServer) -> str:
    template = api.store.get("Deployment", "default", "one")["spec"]["template"]
    return str(template["spec"]["containers"][0]["image"])


def test_an_install_waits_until_everything_is_ready(api: ApiServer, installed: Shell) -> None:
    assert "STATUS: deployed" in installed.helm("status", "one")
    phases = {pod["metadata"]["name"]: pod["status"]["phase"] for pod in api.store.every("Pod", "default")}
    assert len(phases) == 5 and set(phases.values()) == {"Running"}
    owners = {
        each["manager"] for each in api.store.get("Service", "default", "one")["metadata"]["managedFields"]
    }
    assert owners == {"helm"}


def test_an_install_that_never_gets_ready_says_so(api: ApiServer, shell: Shell) -> None:
    done = shell.try_helm("install", "one", CHART, "--set", "image=registry.example/gateway:broken", *WAITING)
    assert done.code == 1 and "Deployment" in done.err
    assert "failed" in shell.helm("list", "--output", "json")


def test_an_object_that_its_schema_does_not_know_is_refused_with_the_field(
    shell: Shell, tmp_path: Path
) -> None:
    done = shell.try_kubectl(
        "apply",
        "--server-side",
        "-f",
        "-",
        said='{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"replica":2}}',
    )
    assert done.code == 1 and "replica" in done.err


def test_an_upgrade_changes_what_the_values_change_and_nothing_else(api: ApiServer, installed: Shell) -> None:
    versions = {
        (kind, each["metadata"]["name"]): each["metadata"]["generation"]
        for kind in ("Deployment", "StatefulSet", "RayService", "Service")
        for each in api.store.every(kind, "default")
    }
    installed.helm("upgrade", "one", CHART, "--set", "greeting=good evening", *WAITING)
    after = {
        (kind, name): api.store.get(kind, "default", name)["metadata"]["generation"]
        for kind, name in versions
    }
    assert {one for one in versions if versions[one] != after[one]} == {("Deployment", "one")}
    assert api.store.get("ConfigMap", "default", "one-settings")["data"]["greeting"] == "good evening"
    assert len(api.store.every("RayCluster", "default")) == 1


def test_an_upgrade_with_the_same_values_changes_no_object(api: ApiServer, installed: Shell) -> None:
    before = len(api.store.log)
    installed.helm("upgrade", "one", CHART, *WAITING)
    assert {change.object["metadata"]["name"][:8] for change in api.store.log[before:]} == {"sh.helm."}


def test_a_failing_upgrade_rolls_back(api: ApiServer, installed: Shell) -> None:
    broken = ("--set", "image=registry.example/gateway:broken", "--set", "greeting=bye")
    done = installed.try_helm("upgrade", "one", CHART, *broken, "--rollback-on-failure", *WAITING)
    assert done.code == 1 and "rolled back" in done.err
    assert image(api) == "registry.example/gateway:1"
    assert api.store.get("ConfigMap", "default", "one-settings")["data"]["greeting"] == "hello"
    states = [each["status"] for each in json.loads(installed.helm("history", "one", "--output", "json"))]
    assert states == ["superseded", "failed", "deployed"]


def test_old_pods_serve_until_new_ones_are_ready(api: ApiServer, installed: Shell) -> None:
    broken = ("--set", "image=registry.example/gateway:broken")
    assert installed.try_helm("upgrade", "one", CHART, *broken, *WAITING).code == 1
    serving = [
        pod for pod in api.store.every("Pod", "default") if pod["metadata"]["labels"].get("app") == "one"
    ]
    images = sorted(pod["spec"]["containers"][0]["image"][-1] for pod in serving)
    assert images == ["1", "1", "n", "n"]


def test_a_rollback_goes_back_to_the_revision_asked_for(api: ApiServer, installed: Shell) -> None:
    for number in (2, 3):
        installed.helm("upgrade", "one", CHART, "--set", f"image=registry.example/gateway:{number}", *WAITING)
    installed.helm("rollback", "one", "2", *WAITING)
    assert image(api) == "registry.example/gateway:2"


def test_the_chart_s_test_runs_and_its_words_are_shown(api: ApiServer, installed: Shell) -> None:
    api.scripts.logs["default", "one-ask", "ask"] = "Paris\n"
    said = installed.helm("test", "one", "--logs", "--timeout", "20s")
    assert "Phase:          Succeeded" in said and "Paris" in said


def test_a_removal_leaves_what_is_to_be_kept(api: ApiServer, installed: Shell) -> None:
    said = installed.helm("uninstall", "one", *WAITING)
    assert "one-kept" in said
    left = [
        (kind.kind, each["metadata"]["name"])
        for kind in api.kinds.all
        for each in api.store.every(kind, "default")
    ]
    assert left == [("Secret", "one-kept")]


def test_an_upgrade_that_takes_replicas_from_an_autoscaler_is_refused(
    api: ApiServer, installed: Shell
) -> None:
    api.alive.scale("default", "one", 7)
    done = installed.try_helm("upgrade", "one", CHART, "--set", "replicas=3", *WAITING)
    assert done.code == 1 and "conflict" in done.err and ".spec.replicas" in done.err
    assert api.store.get("Deployment", "default", "one")["spec"]["replicas"] == 7


def test_a_chart_without_replicas_leaves_the_autoscaler_alone(api: ApiServer, shell: Shell) -> None:
    shell.helm("install", "one", CHART, "--set", "replicas=null", *WAITING)
    api.alive.scale("default", "one", 7)
    shell.helm("upgrade", "one", CHART, "--set", "replicas=null", "--set", "greeting=hi", *WAITING)
    assert api.store.get("Deployment", "default", "one")["spec"]["replicas"] == 7


def test_a_second_release_cannot_take_the_objects_of_the_first(installed: Shell) -> None:
    done = installed.try_helm("install", "one", CHART, "--namespace", "default")
    assert done.code == 1 and "in use" in done.err


def test_a_namespace_is_made_when_asked_for(api: ApiServer, shell: Shell) -> None:
    assert "not found" in shell.try_helm("install", "one", CHART, "--namespace", "llm").err
    shell.helm("install", "one", CHART, "--namespace", "llm", "--create-namespace", *WAITING)
    assert api.store.find("Deployment", "llm", "one") is not None
