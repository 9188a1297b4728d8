"""`headrace cluster upgrade` against an API server: the command, the forecast, and a blue/green as it goes."""

import copy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from services.cli.cluster import kube
from services.cli.cluster.upgrade import Follow
from tests.chart.apiserver import ray
from tests.chart.live.command import Said, headrace
from tests.chart.live.fleet import MODEL, NAMESPACE, SERVICE, Fleet

ROOT = Path(__file__).parents[3]
UPGRADING = "Without GPUs for two clusters"
DELETION = f"kubectl delete raycluster -n {NAMESPACE} -l ray.io/originated-from-cr-name={SERVICE}"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return headrace(capsys)


def follow(fleet: Fleet, *steps: Callable[[], None], patience: float = 20) -> bool:
    """Follows an upgrade; after each look comes a step."""
    left, now = list(steps), [0.0]

    def pause() -> None:
        now[0] += 1
        if left:
            left.pop(0)()

    return Follow(kube.connect(None, None, None), None, SERVICE, patience, pause, lambda: now[0]).run()


def service(fleet: Fleet) -> dict[str, object]:
    return fleet.api.store.get("RayService", NAMESPACE, SERVICE)


def report(fleet: Fleet) -> None:
    ray.report(fleet.api.store, fleet.api.alive, service(fleet))


def test_the_command_is_helm_s_and_changes_nothing_else(fleet: Fleet, run: Callable[..., Said]) -> None:
    before = len(fleet.api.store.log)
    said = run("cluster", "upgrade", MODEL, "--revision", "9f1c0de")
    words = shlex.split(said.out.splitlines()[0])
    assert words[:4] == ["helm", "upgrade", "headrace", "helm/headrace"]
    assert f"models.{MODEL}.checkpoint.revision=9f1c0de" in words and "--reset-then-reuse-values" in words
    assert "4 GPUs more are needed; at most 4 of 8 are free" in said.out and "too few" not in said.out
    assert len(fleet.api.store.log) == before


def named(fleet: Fleet, model: str) -> None:
    item = service(fleet)
    item["metadata"]["labels"]["headrace.dev/model"] = model  # type: ignore[index]
    fleet.api.store.replace("RayService", item)


def test_a_dot_in_a_model_s_name_is_not_a_path(fleet: Fleet, run: Callable[..., Said]) -> None:
    named(fleet, "llama-3.1")
    words = shlex.split(run("cluster", "upgrade", "llama-3.1", "--revision", "x").out.splitlines()[0])
    assert r"models.llama-3\.1.checkpoint.revision=x" in words


@pytest.mark.parametrize("spelled", [SERVICE, "llama-3-1", "LLAMA_3.1"])
def test_the_values_key_is_the_model_s_however_it_was_asked_for(
    fleet: Fleet, run: Callable[..., Said], spelled: str
) -> None:
    named(fleet, "Llama-3.1")
    words = shlex.split(run("cluster", "upgrade", spelled, "--revision", "x").out.splitlines()[0])
    assert r"models.Llama-3\.1.checkpoint.revision=x" in words


def test_what_to_keep_in_the_values_file_is_said_as_values(fleet: Fleet, run: Callable[..., Said]) -> None:
    named(fleet, "llama-3.1")
    said = run("cluster", "upgrade", "llama-3.1", "--revision", "12", "--image", "2").out.splitlines()[1]
    assert said.startswith("# put this into your values file too")
    assert yaml.safe_load(said[said.index("{") :]) == {
        "models": {"llama-3.1": {"checkpoint": {"revision": "12"}}},
        "images": {"engine": {"tag": "2"}},
    }


def test_a_model_of_two_releases_is_asked_back(fleet: Fleet, run: Callable[..., Said]) -> None:
    item = copy.deepcopy(service(fleet))
    labels = item["metadata"]["labels"] | {"app.kubernetes.io/instance": "other"}  # type: ignore[index]
    other = {"name": "other", "namespace": NAMESPACE, "labels": labels}
    fleet.api.store.create("RayService", {"metadata": other, "spec": item["spec"]})
    said = run("cluster", "upgrade", MODEL, "--revision", "x")
    assert said.code == 2 and "Give --release: headrace or other." in said.err


def test_too_few_gpus_are_said_before_the_upgrade_with_the_steps_by_hand(
    fleet: Fleet, run: Callable[..., Said]
) -> None:
    fleet.api.store.delete("Node", "", "gpu-2")
    said = run("cluster", "upgrade", MODEL, "--image", "2")
    assert "at most 0 of 4 are free" in said.out and "too few" in said.out
    assert f"models.{MODEL}.upgrade.strategy=None: it changes nothing yet" in said.out
    assert said.out.count(DELETION) == 1 and UPGRADING in said.out


def test_a_model_that_moves_by_hand_only_is_told_the_steps(fleet: Fleet, run: Callable[..., Said]) -> None:
    item = service(fleet)
    item["spec"]["upgradeStrategy"] = {"type": "None"}  # type: ignore[index]
    fleet.api.store.replace("RayService", item)
    said = run("cluster", "upgrade", MODEL, "--revision", "x")
    assert "has upgrade.strategy None" in said.out and "GPUs more are needed" not in said.out
    assert said.out.count(DELETION) == 1 and UPGRADING in said.out


def test_the_steps_by_hand_are_in_the_chart_s_upgrade_notes() -> None:
    assert f"## {UPGRADING}\n" in (ROOT / "helm/headrace/UPGRADE.md").read_text()


def test_a_blue_green_is_followed_to_its_end(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The new cluster's pods start when the test says so; then traffic moves; then the old cluster is deleted."""
    alive = fleet.api.alive

    def begin() -> None:
        alive.rest("Pod")
        fleet.upgrade("registry.example/engine:2")

    def load() -> None:
        alive.begin("Pod")
        for pod in fleet.pods("engine"):
            if pod["status"]["phase"] == "Pending":
                fleet.api.store.replace(
                    "Pod", pod | {"metadata": pod["metadata"] | {"annotations": {"go": "1"}}}
                )
        report(fleet)

    def retire() -> None:
        ray.retire(fleet.api.store, service(fleet))

    assert follow(fleet, lambda: None, begin, lambda: None, load, lambda: None, retire)
    assert capsys.readouterr().out.splitlines() == [
        f"{SERVICE}-00001 serves, and no upgrade is under way: waiting for one",
        f"{SERVICE}-00002 comes up beside {SERVICE}-00001: 0 of 3 pods are ready",
        f"{SERVICE}-00002 serves: gateways send new turns to its replicas, by their leases",
        f"{SERVICE}-00001 finishes its turns; KubeRay deletes it 900 s after the switch",
        f"done: {SERVICE}-00002 serves alone",
    ]


def test_an_upgrade_that_is_taken_back_is_not_done(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`helm rollback` while the new cluster comes up: KubeRay drops it, and the first one serves on."""

    def take_back() -> None:
        fleet.api.store.delete("RayCluster", NAMESPACE, f"{SERVICE}-00002")
        fleet.upgrade("registry.example/engine:1")

    fleet.gpu_nodes = {"gpu-1": 4}
    upgrade = lambda: fleet.upgrade("registry.example/engine:2")  # noqa: E731
    assert follow(fleet, upgrade, lambda: None, take_back) is False
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"taken back: {SERVICE}-00001 serves as before, and no other comes up"


def test_who_begins_to_follow_after_the_switch_sees_it_done(fleet: Fleet) -> None:
    fleet.upgrade("registry.example/engine:2")
    assert follow(fleet, lambda: ray.retire(fleet.api.store, service(fleet)))


def test_an_upgrade_is_followed_through_a_restart_of_the_api_server(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    away = lambda: fleet.api.hang_up(True)  # noqa: E731
    back = lambda: fleet.api.hang_up(False)  # noqa: E731
    upgrade = lambda: fleet.upgrade("registry.example/engine:2")  # noqa: E731
    retire = lambda: ray.retire(fleet.api.store, service(fleet))  # noqa: E731
    assert follow(fleet, away, lambda: None, back, upgrade, retire)
    said = capsys.readouterr().out
    assert said.count("does not answer") == 1 and said.count("answers again") == 1


def test_the_switch_shows_in_the_leases(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway is linked to two replicas, then to those of both clusters."""
    where = (NAMESPACE, fleet.pods("gateway")[0]["metadata"]["name"], "9464", "metrics")

    def linked(count: int) -> None:
        lines = (f'headrace_link_up{{model="{MODEL}",replica="r{n}"}} 1\n' for n in range(count))
        fleet.api.scripts.pages[where] = "# TYPE headrace_link_up gauge\n" + "".join(lines)

    linked(2)
    fleet.gpu_nodes = {"gpu-1": 4}
    fleet.upgrade("registry.example/engine:2")
    follow(fleet, lambda: linked(4), patience=3)
    said = [line for line in capsys.readouterr().out.splitlines() if "lease" in line]
    assert said == ["turns can go to 2 replicas with a lease", "turns can go to 4 replicas with a lease"]


def test_what_blocks_an_upgrade_is_said_once(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.gpu_nodes = {"gpu-1": 4}
    fleet.upgrade("registry.example/engine:broken")
    assert follow(fleet, patience=5) is False
    said = capsys.readouterr().out
    assert said.count("blocked: ") == 3  # the head's image, two workers' GPUs
    assert "ImagePullBackOff" in said and said.count("Unschedulable") == 2
    assert "not done after 5 s; the upgrade itself goes on" in said


def test_the_load_of_the_model_is_told_as_serve_tells_it(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.gpu_nodes = {"gpu-1": 4}
    fleet.upgrade("registry.example/engine:2")
    pending = service(fleet)["status"]["pendingServiceStatus"]  # type: ignore[index]
    state = {"status": "UPDATING", "message": "replica has been initializing for 61 s"}
    pending["applicationStatuses"] = {"gpt": {"serveDeploymentStatuses": {"Replica": state}}}
    fleet.api.alive.rest("RayService")
    fleet.api.alive.status(service(fleet), {"pendingServiceStatus": pending})
    follow(fleet, patience=1)
    assert "gpt/Replica is UPDATING: replica has been initializing for 61 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nothing-such", "--watch"), 4, f"no model nothing-such is in {NAMESPACE}. There: {MODEL}."),
        ((MODEL,), 2, "Give --revision, --image or --watch"),
    ],
)
def test_mistakes_are_one_line(
    fleet: Fleet, run: Callable[..., Said], arguments: tuple[str, ...], code: int, words: str
) -> None:
    said = run("cluster", "upgrade", *arguments)
    assert said.code == code and words in said.err and said.err.count("\n") == 1
