"""What an operator does by hand, by the real kubectl."""

import json

import pytest

from tests.chart.apiserver.server import ApiServer
from tests.chart.live.shell import SMALL, Shell

SETTINGS = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"%s"}}'


@pytest.fixture
def installed(shell: Shell) -> Shell:
    shell.helm("install", "one", str(SMALL), "--wait", "--timeout", "20s")
    return shell


def apply(shell: Shell, value: str, *flags: str) -> tuple[int, str]:
    done = shell.try_kubectl("apply", "--server-side", *flags, "-f", "-", said=SETTINGS % value)
    return done.code, done.out + done.err


def test_get_prints_the_columns_of_the_kind(installed: Shell) -> None:
    said = installed.kubectl("get", "pods,deploy,rayservice")
    assert "READY   STATUS    RESTARTS" in said and "2/2" in said and "NUM SERVE ENDPOINTS" in said


def test_get_selects_by_label_and_field(installed: Shell) -> None:
    names = installed.kubectl("get", "pods", "-l", "app in (one),!ray.io/cluster", "-o", "name").split()
    assert len(names) == 2
    running = installed.kubectl("get", "pods", "--field-selector", "status.phase!=Running", "-o", "name")
    assert running == ""


def test_get_reads_in_pages(api: ApiServer, shell: Shell) -> None:
    for number in range(7):
        api.store.create("ConfigMap", {"metadata": {"name": f"a{number}", "namespace": "default"}})
    names = shell.kubectl("get", "configmaps", "--chunk-size", "3", "-o", "name").split()
    assert len(names) == 7
    assert sum("continue" in path for _, path in api.requests) == 2


def test_describe_shows_events(api: ApiServer, installed: Shell) -> None:
    pod = api.store.every("Pod", "default")[0]
    named = {
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "namespace": "default",
        "uid": pod["metadata"]["uid"],
    }
    event = {"metadata": {"name": "e", "namespace": "default"}, "involvedObject": named, "type": "Warning"}
    api.store.create("Event", event | {"reason": "BackOff", "message": "restarting failed container"})
    assert "restarting failed container" in installed.kubectl("describe", "pod", pod["metadata"]["name"])


def test_two_appliers_of_one_field_are_in_conflict_until_one_forces_it(shell: Shell) -> None:
    assert apply(shell, "1")[0] == 0
    code, said = apply(shell, "2", "--field-manager", "other")
    assert code == 1 and ".data.x" in said and "conflict" in said
    assert apply(shell, "2", "--field-manager", "other", "--force-conflicts")[0] == 0
    assert shell.kubectl("get", "configmap", "a", "-o", "jsonpath={.data.x}") == "2"


def test_what_an_applier_no_longer_sets_goes(shell: Shell) -> None:
    apply(shell, "1")
    shell.kubectl("label", "configmap", "a", "by=hand")
    shell.kubectl("apply", "--server-side", "-f", "-", said=SETTINGS.replace('"x":"%s"', '"y":"2"'))
    found = json.loads(shell.kubectl("get", "configmap", "a", "-o", "json"))
    assert found["data"] == {"y": "2"} and found["metadata"]["labels"] == {"by": "hand"}


def test_diff_shows_what_would_change_and_changes_nothing(shell: Shell) -> None:
    apply(shell, "1")
    done = shell.try_kubectl("diff", "--server-side", "-f", "-", said=SETTINGS % "2")
    assert done.code == 1 and "+  x: " in done.out
    assert shell.kubectl("get", "configmap", "a", "-o", "jsonpath={.data.x}") == "1"


def test_a_client_side_apply_patches_lists_by_their_keys(api: ApiServer, installed: Shell) -> None:
    found = json.loads(installed.kubectl("get", "deployment", "one", "-o", "json"))
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/gateway:9"
    found["metadata"] = {"name": "one", "namespace": "default"}
    installed.kubectl("apply", "--server-side=false", "-f", "-", said=json.dumps(found))
    containers = api.store.get("Deployment", "default", "one")["spec"]["template"]["spec"]["containers"]
    assert [each["image"] for each in containers] == ["registry.example/gateway:9"]
    assert containers[0]["ports"] == [{"name": "grpc", "containerPort": 50051}]


def test_scale_and_rollout_wait(api: ApiServer, installed: Shell) -> None:
    installed.kubectl("scale", "deployment/one", "--replicas", "4")
    installed.kubectl("rollout", "status", "deployment/one", "--timeout", "10s")
    installed.kubectl("wait", "--for=condition=Ready", "rayservice/one-engine", "--timeout", "10s")
    assert api.store.get("Deployment", "default", "one")["status"]["readyReplicas"] == 4


def test_wait_sees_a_deletion(api: ApiServer, installed: Shell) -> None:
    installed.kubectl("delete", "rayservice", "one-engine", "--wait=true", "--timeout", "10s")
    assert api.store.every("RayCluster", "default") == []


def test_logs_and_the_logs_of_the_container_before(api: ApiServer, installed: Shell) -> None:
    api.scripts.logs["default", "one-store-0", "store"] = "a\nb\n"
    pod = api.store.every("Pod", "default")[0]["metadata"]["name"]
    api.scripts.logs["default", pod, "gateway"] = "first\nlast\n"
    assert installed.kubectl("logs", pod, "--tail", "1") == "last\n"
    assert installed.try_kubectl("logs", pod, "--previous").code == 1
    api.scripts.previous["default", pod, "gateway"] = "killed\n"
    assert installed.kubectl("logs", pod, "--previous") == "killed\n"


def test_a_drain_says_what_it_would_do_and_does_nothing(api: ApiServer, installed: Shell) -> None:
    api.store.create("Node", {"metadata": {"name": "node-1"}})
    before = [pod["metadata"]["name"] for pod in api.store.every("Pod", "default")]
    said = installed.kubectl("drain", "node-1", "--dry-run=server", "--force", "--timeout", "10s")
    assert "node/node-1 cordoned (server dry run)" in said
    assert [pod["metadata"]["name"] for pod in api.store.every("Pod", "default")] == before
    assert not api.store.get("Node", "", "node-1").get("spec")


def test_a_drain_keeps_to_the_budget(api: ApiServer, installed: Shell) -> None:
    """The budget allows one pod of two to be away; the second is evicted when the first has a successor."""
    api.store.create("Node", {"metadata": {"name": "node-1"}})
    before = {pod["metadata"]["uid"] for pod in api.store.every("Pod", "default")}
    api.alive.schedule = lambda pod: "node-2"
    installed.kubectl("drain", "node-1", "--force", "--timeout", "20s")
    after = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in api.store.every("Pod", "default")}
    assert set(after.values()) == {"node-2"} and not before & set(after)
    assert len(after) == 3  # nobody here makes Ray's pods anew


def test_who_may_not_is_told_what(api: ApiServer, shell: Shell) -> None:
    other = Shell(api.kubeconfig("reader"), shell.home)
    done = other.try_kubectl("get", "pods")
    assert done.code == 1 and 'User "reader" cannot list resource "pods"' in done.err
    role = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}
    place = {"name": "r", "namespace": "default"}
    api.store.create("Role", {"metadata": dict(place)} | role)
    binding = {"subjects": [{"kind": "User", "name": "reader"}], "roleRef": {"kind": "Role", "name": "r"}}
    api.store.create("RoleBinding", {"metadata": dict(place)} | binding)
    assert other.try_kubectl("get", "pods").code == 0
    assert other.try_kubectl("auth", "can-i", "list", "pods").out.strip() == "yes"
    assert other.try_kubectl("auth", "can-i", "delete", "pods").out.strip() == "no"
