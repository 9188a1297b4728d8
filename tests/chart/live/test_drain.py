"""`headrace cluster drain` against an API server: what moves, in which order, what holds it, and what is left."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from services.cli.cluster import kube
from services.cli.cluster.drain import Drain
from tests.chart.apiserver.server import ApiServer
from tests.chart.apiserver.store import Change
from tests.chart.live.command import Said, headrace
from tests.chart.live.fleet import NAMESPACE, Fleet


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return headrace(capsys)


@pytest.fixture(autouse=True)
def same_node(fleet: Fleet) -> None:
    """Gateways, store and head are on cpu-1; a new pod of these goes to cpu-2."""
    fleet.api.store.create("Node", {"metadata": {"name": "cpu-2"}})
    before = fleet.place

    def place(pod: dict[str, object]) -> str:
        found = before(pod)
        return "cpu-2" if found == "cpu-1" else found

    fleet.api.alive.schedule = place


def drain(fleet: Fleet, node: str, *steps: Callable[[], None], patience: float = 60) -> list[str]:
    """Runs a drain; before each look but the first comes a step. Returns names of what is left."""
    left, now = list(steps), [0.0]

    def pause() -> None:
        now[0] += 1
        if left:
            left.pop(0)()

    found = Drain(kube.connect(None, None, None), node, patience, pause, lambda: now[0]).run()
    return [str(each["metadata"]["name"]) for each in found]


def names(fleet: Fleet, node: str) -> list[str]:
    found = fleet.api.store.every("Pod", NAMESPACE)
    return [each["metadata"]["name"] for each in found if each["spec"].get("nodeName") == node]


def test_a_rehearsal_judges_and_changes_nothing(fleet: Fleet, run: Callable[..., Said]) -> None:
    before = len(fleet.api.store.log)
    said = run("cluster", "drain", "gpu-1", "--dry-run")
    assert said.code == 0 and said.out.count("would be evicted, with 2 GPUs to be found elsewhere") == 2
    assert "gpu-1 would take no new pods" in said.out
    assert len(fleet.api.store.log) == before


def test_a_rehearsal_names_what_a_budget_holds(fleet: Fleet, run: Callable[..., Said]) -> None:
    for pod in fleet.pods("gateway")[:1]:
        fleet.container(pod, ready=False)
    said = run("cluster", "drain", "cpu-1", "--dry-run")
    assert "would wait: its disruption budget" in said.out and "a Ray head" in said.out


def test_pods_move_as_budgets_allow_and_the_store_goes_last(fleet: Fleet) -> None:
    """The first gateway takes its grace, and whoever comes after it stays as long as it does."""
    gone: list[str] = []
    fleet.api.store.listeners.append(
        lambda change: gone.append(component(change.object)) if ends(change) else None
    )
    slow = fleet.pods("gateway")[0]["metadata"]["name"]
    fleet.api.store.lingering.add((NAMESPACE, slow))
    seen: list[list[str]] = []
    look = lambda: seen.append(list(gone))  # noqa: E731
    end = lambda: fleet.api.store.end_pod(NAMESPACE, slow)  # noqa: E731
    assert drain(fleet, "cpu-1", look, look, look, end) == []
    assert seen == [["gateway"]] * 3 and gone == ["gateway", "gateway", "engine", "store"]
    assert names(fleet, "cpu-1") == [] and len(names(fleet, "cpu-2")) == 3
    assert fleet.api.store.get("Node", "", "cpu-1")["spec"]["unschedulable"] is True


def ends(change: Change) -> bool:
    """Whether a pod begins to end."""
    before = change.before or {"metadata": {}}
    is_new = "deletionTimestamp" not in before["metadata"]
    ending = change.type == "DELETED" or "deletionTimestamp" in change.object["metadata"]
    return change.kind.kind == "Pod" and ending and is_new


def component(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def test_a_budget_holds_a_pod_until_another_is_ready(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that is not ready uses up the budget: the good one waits until it is."""
    bad, good = fleet.pods("gateway")
    fleet.container(bad, ready=False)
    fleet.api.alive.rest("Deployment")

    def heal() -> None:
        fleet.api.alive.begin("Deployment")
        item = fleet.api.store.get("Deployment", NAMESPACE, "headrace-gateway")
        item["metadata"]["annotations"] = {"looked": "again"}
        fleet.api.store.replace("Deployment", item)

    assert drain(fleet, "cpu-1", lambda: None, heal) == []
    said = capsys.readouterr().out
    assert f"{good['metadata']['name']} waits: its disruption budget lets none go" in said
    assert said.count(f"{good['metadata']['name']} waits") == 1


def test_a_budget_that_its_controller_cannot_reckon_lets_no_engine_go(
    fleet: Fleet, run: Callable[..., Said]
) -> None:
    """A RayCluster has no scale, so Kubernetes knows no number that maxUnavailable could be taken from."""
    item = fleet.api.store.get("PodDisruptionBudget", NAMESPACE, "headrace-engine")
    del item["spec"]["minAvailable"]
    item["spec"]["maxUnavailable"] = 1
    fleet.api.store.replace("PodDisruptionBudget", item)
    assert run("cluster", "drain", "gpu-1", "--dry-run").out.count("would wait: its disruption budget") == 2
    said = run("cluster", "status")
    assert said.code == 1 and "budget headrace-engine lets nobody go: rayclusters.ray.io does not" in said.out


def test_a_pod_that_takes_its_grace_is_waited_for_and_its_turns_are_told(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = next(pod["metadata"]["name"] for pod in fleet.pods("engine") if pod["spec"]["nodeName"] == "gpu-1")
    fleet.api.store.lingering.add((NAMESPACE, slow))
    page = "# TYPE ray_headrace_replica_running gauge\nray_headrace_replica_running 3\n"
    fleet.api.scripts.pages[NAMESPACE, slow, "8080", "metrics"] = page
    end = lambda: fleet.api.store.end_pod(NAMESPACE, slow)  # noqa: E731
    assert drain(fleet, "gpu-1", lambda: None, lambda: None, end) == []
    assert f"{slow} ends: 3 turns are still there" in capsys.readouterr().out


def test_what_patience_does_not_suffice_for_is_named_and_fails(
    fleet: Fleet, run: Callable[..., Said]
) -> None:
    slow = fleet.pods("gateway")[0]["metadata"]["name"]
    fleet.api.store.lingering.add((NAMESPACE, slow))
    fleet.api.store.create("Pod", other_pod())
    said = run("cluster", "drain", "cpu-1", "--patience", "0")
    assert said.code == 1 and f"left: {slow} (Ending)" in said.out and "1 pods of others stay" in said.out


def test_a_node_is_called_empty_only_by_who_could_see_it(
    api: ApiServer, fleet: Fleet, run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "gpu-2 is empty of pods" in run("cluster", "drain", "gpu-2").out
    role = run("cluster", "role", "-n", NAMESPACE, "--user", "alice", "--drain").out
    for item in yaml.safe_load_all(role):
        api.store.create(item["kind"], item)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig("alice", NAMESPACE)))
    said = run("cluster", "drain", "gpu-2")
    assert said.code == 0 and "empty" not in said.out
    assert "gpu-2: whether pods of others are there could not be read" in said.out


def test_a_node_with_something_left_is_not_called_empty(fleet: Fleet, run: Callable[..., Said]) -> None:
    for pod in fleet.pods("gateway"):
        fleet.api.store.lingering.add((NAMESPACE, pod["metadata"]["name"]))
    said = run("cluster", "drain", "cpu-1", "--patience", "0")
    assert said.code == 1 and "empty" not in said.out


def test_a_drain_survives_a_restart_of_the_api_server(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    away = lambda: fleet.api.hang_up(True)  # noqa: E731
    back = lambda: fleet.api.hang_up(False)  # noqa: E731
    slow = fleet.pods("gateway")[0]["metadata"]["name"]
    fleet.api.store.lingering.add((NAMESPACE, slow))
    end = lambda: fleet.api.store.end_pod(NAMESPACE, slow)  # noqa: E731
    assert drain(fleet, "cpu-1", away, lambda: None, back, end) == []
    said = capsys.readouterr().out
    assert said.count("does not answer") == 1 and said.count("answers again") == 1


def test_a_pod_that_does_not_answer_about_its_turns_holds_no_drain_up(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "TIMEOUT", (5.0, 2.0))
    slow = fleet.pods("gateway")[0]["metadata"]["name"]
    fleet.api.store.lingering.add((NAMESPACE, slow))
    fleet.api.silent.add(slow)
    assert drain(fleet, "cpu-1", lambda: None, lambda: fleet.api.store.end_pod(NAMESPACE, slow)) == []
    assert f"{slow} ends: its turns move" in capsys.readouterr().out


def test_a_drain_whose_api_server_stays_away_ends_with_its_patience(fleet: Fleet) -> None:
    with pytest.raises(kube.Away, match="does not answer"):
        drain(fleet, "cpu-1", lambda: fleet.api.hang_up(True), patience=4)


def other_pod() -> dict[str, object]:
    spec = {"nodeName": "cpu-1", "containers": [{"name": "a", "image": "registry.example/a:1"}]}
    return {"metadata": {"name": "other", "namespace": "default"}, "spec": spec}


def test_a_node_that_is_not_there_is_one_line(fleet: Fleet, run: Callable[..., Said]) -> None:
    said = run("cluster", "drain", "nowhere")
    assert (
        said.code == 4 and said.err == "headrace: there is no node nowhere. `kubectl get nodes` lists them.\n"
    )
