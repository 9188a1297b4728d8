"""`headrace cluster drain` against an API server: what moves, in which order, what holds it, and what is left."""

from collections.abc import Callable

import pytest

from services.cli.cluster import kube
from services.cli.cluster.drain import Drain
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
    evicted: list[str] = []
    fleet.api.store.listeners.append(
        lambda change: (
            evicted.append(change.object["metadata"]["labels"]["app.kubernetes.io/component"])
            if change.kind.kind == "Pod" and change.type == "DELETED"
            else None
        )
    )
    assert drain(fleet, "cpu-1") == []
    assert evicted == ["gateway", "gateway", "engine", "store"]
    assert names(fleet, "cpu-1") == [] and len(names(fleet, "cpu-2")) == 3
    assert fleet.api.store.get("Node", "", "cpu-1")["spec"]["unschedulable"] is True


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
    slow = fleet.pods("store")[0]["metadata"]["name"]
    fleet.api.store.lingering.add((NAMESPACE, slow))
    fleet.api.store.create("Pod", other_pod())
    said = run("cluster", "drain", "cpu-1", "--patience", "0")
    assert said.code == 1 and f"left: {slow} (Ending)" in said.out and "1 pods of others stay" in said.out


def other_pod() -> dict[str, object]:
    spec = {"nodeName": "cpu-1", "containers": [{"name": "a", "image": "registry.example/a:1"}]}
    return {"metadata": {"name": "other", "namespace": "default"}, "spec": spec}


def test_a_node_that_is_not_there_is_one_line(fleet: Fleet, run: Callable[..., Said]) -> None:
    said = run("cluster", "drain", "nowhere")
    assert (
        said.code == 4 and said.err == "headrace: there is no node nowhere. `kubectl get nodes` lists them.\n"
    )
