"""`headrace cluster status` against an API server: what an operator learns, and what each trouble is called."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.chart.apiserver.server import ApiServer
from tests.chart.live.command import Said, headrace
from tests.chart.live.fleet import MODEL, NAMESPACE, SERVICE, Fleet

HEAD_METRICS = """\
# TYPE ray_headrace_scaling_desired gauge
ray_headrace_scaling_desired{model="gpt-oss-120b"} 4
ray_headrace_scaling_current{model="gpt-oss-120b"} 2
ray_headrace_scaling_wanted{model="gpt-oss-120b",signal="turns"} 3.6
ray_headrace_scaling_held{model="gpt-oss-120b",because="delay"} 1
ray_headrace_scaling_stale_replicas{model="gpt-oss-120b"} 0
"""
FIELDS = ("models", "pods", "gpus", "autoscalers", "scaling", "budgets", "certificates", "trouble", "notes")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return headrace(capsys)


def report(run: Callable[..., Said], *flags: str) -> dict[str, list[dict[str, object]]]:
    return dict(json.loads(run("cluster", "status", "--json", *flags).out))


def test_a_healthy_release_is_shown_whole_and_exits_0(fleet: Fleet, run: Callable[..., Said]) -> None:
    head = next(
        pod for pod in fleet.pods("engine") if pod["metadata"]["labels"]["ray.io/node-type"] == "head"
    )
    fleet.api.scripts.pages[NAMESPACE, head["metadata"]["name"], "8080", "metrics"] = HEAD_METRICS
    for pod in fleet.pods("gateway"):
        fleet.api.scripts.pages[NAMESPACE, pod["metadata"]["name"], "9464", "metrics"] = ""
    said = run("cluster", "status")
    assert said.code == 0 and "trouble" not in said.out, said.out
    found = report(run)
    assert set(FIELDS) <= set(found)
    assert [(row["cluster"], row["pods"], row["traffic"]) for row in found["models"]] == [
        (f"{SERVICE}-00001", "3/3", "by leases")
    ]
    assert {row["node"]: (row["allocatable"], row["ours"]) for row in found["gpus"]} == {
        "gpu-1": (4, 4),
        "gpu-2": (4, 0),
    }
    assert found["scaling"] == [
        {"model": MODEL, "desired": 4, "current": 2, "wanted": "turns 3.6", "held": "delay", "silent": 0}
    ]
    assert found["autoscalers"][0]["max"] == 8 and len(found["budgets"]) == 2 and found["notes"] == []


def test_a_pod_that_fits_nowhere_is_named_with_the_scheduler_s_words(
    fleet: Fleet, run: Callable[..., Said]
) -> None:
    fleet.gpu_nodes = {"gpu-1": 0}
    fleet.upgrade("registry.example/engine:2")
    said = run("cluster", "status")
    assert (
        said.code == 1 and "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu" in said.out
    )
    assert "add nodes or free GPUs" in said.out
    assert [row["role"] for row in report(run)["models"]] == ["active", "pending"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}},
            "ImagePullBackOff: container",
        ),
        (
            {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "restartCount": 3},
            "OOMKilled: container",
        ),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 9},
            "kubectl logs --previous",
        ),
        ({"state": {"waiting": {"reason": "CreateContainerConfigError"}}}, "a Secret or ConfigMap"),
        ({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}, "ended with 1"),
    ],
)
def test_each_trouble_of_a_container_is_one_line(
    fleet: Fleet, run: Callable[..., Said], state: dict[str, object], words: str
) -> None:
    pod = fleet.pods("gateway")[0]
    fleet.container(pod, ready=False, **state)
    said = run("cluster", "status")
    line = next(
        line for line in said.out.splitlines() if line.startswith(f"trouble: {pod['metadata']['name']}")
    )
    assert said.code == 1 and words in line


def test_a_certificate_that_ends_soon_is_trouble(fleet: Fleet, run: Callable[..., Said]) -> None:
    item = fleet.api.store.get("Certificate", NAMESPACE, "headrace-tls")
    fleet.api.alive.status(item, {"notAfter": "2001-01-01T00:00:00Z"})
    assert "certificate headrace-tls ends in -" in run("cluster", "status").out


def test_a_certificate_that_a_gateway_serves_is_looked_at_too(fleet: Fleet, run: Callable[..., Said]) -> None:
    pod = fleet.pods("gateway")[0]["metadata"]["name"]
    page = "# TYPE headrace_tls_expiry_seconds gauge\nheadrace_tls_expiry_seconds 1000\n"
    fleet.api.scripts.pages[NAMESPACE, pod, "9464", "metrics"] = page
    assert f"certificate served by {pod} ends in -" in run("cluster", "status").out


def test_a_pod_that_does_not_answer_is_a_note_and_the_rest_is_shown(
    fleet: Fleet, run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cli.cluster.kube.TIMEOUT", (5.0, 2.0))
    fleet.api.silent.add(pod := fleet.pods("gateway")[0]["metadata"]["name"])
    found = report(run)
    assert f"metrics of {pod}: no answer" in found["notes"] and len(found["pods"]) == 6


def test_a_service_that_does_not_serve_is_trouble(fleet: Fleet, run: Callable[..., Said]) -> None:
    item = fleet.api.store.get("RayService", NAMESPACE, SERVICE)
    broken = {"type": "Ready", "status": "False", "reason": "X", "message": "no serve endpoint"}
    fleet.api.alive.rest("RayService")
    fleet.api.alive.status(item, {"conditions": [broken]})
    assert f"{MODEL} does not serve: no serve endpoint" in run("cluster", "status").out


def test_without_the_operators_of_others_their_kinds_are_passed_over(
    fleet: Fleet, run: Callable[..., Said]
) -> None:
    fleet.api.kinds.all = [
        kind for kind in fleet.api.kinds.all if kind.group not in ("keda.sh", "cert-manager.io")
    ]
    found = report(run)
    assert found["certificates"] == [] and not any("not shown" in str(note) for note in found["notes"])


def test_a_pod_s_own_account_is_used_where_there_is_no_kubeconfig(
    api: ApiServer, fleet: Fleet, run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kubernetes.config import incluster_config

    from services.cli.cluster import kube

    written = yaml.safe_load(api.kubeconfig().read_text())
    (tmp_path / "token").write_text(written["users"][0]["user"]["token"])
    (tmp_path / "namespace").write_text(f"{NAMESPACE}\n")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setattr(kube, "ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    authority = written["clusters"][0]["cluster"]["certificate-authority"]
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", authority)
    assert run("cluster", "status").code == 0


# --- errors: one line, what to do, no traceback


def one_line(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert said.err.count("\n") == 1 and "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_no_kubeconfig(run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    one_line(run("cluster", "status"), 2, "no kubeconfig", "--kubeconfig")


@pytest.mark.parametrize(
    "text", ["", "a: [", "[]", "apiVersion: v1\nkind: Config\n", "current-context: a\ncontexts: []\n"]
)
def test_a_kubeconfig_that_is_none(run: Callable[..., Said], tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    one_line(run("cluster", "status", "--kubeconfig", str(tmp_path / "config")), 2, "cannot be used")


def test_a_context_that_is_not_there(fleet: Fleet, run: Callable[..., Said]) -> None:
    one_line(run("cluster", "status", "--context", "nowhere"), 2, "nowhere")


def test_an_api_server_that_is_away(fleet: Fleet, run: Callable[..., Said]) -> None:
    fleet.api.stop()
    one_line(run("cluster", "status"), 3, "does not answer", "connection refused")


def test_a_stranger_is_refused(fleet: Fleet, run: Callable[..., Said]) -> None:
    fleet.api.forget("owner")
    one_line(run("cluster", "status"), 4, "does not know who you are")


def test_a_user_without_rights_is_told_which_and_where_to_get_them(
    api: ApiServer, fleet: Fleet, run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig("alice", NAMESPACE)))
    one_line(run("cluster", "status"), 4, 'User "alice" cannot list', "headrace cluster role")


def test_a_namespace_without_headrace_names_those_that_have_it(
    fleet: Fleet, run: Callable[..., Said]
) -> None:
    one_line(
        run("cluster", "status", "-n", "default"), 3, "nothing of headrace is in namespace default", NAMESPACE
    )


def test_a_release_that_is_not_there(fleet: Fleet, run: Callable[..., Said]) -> None:
    one_line(run("cluster", "status", "--release", "other"), 3, "release other is not in namespace")
