"""`headrace cluster bundle` against an API server: what is in the file, and that no secret is."""

import base64
import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from services.cli.cluster.role import roles, user_named
from tests.chart.apiserver.server import ApiServer
from tests.chart.live.command import Said, headrace
from tests.chart.live.fleet import MODEL, NAMESPACE, SECRETS, Fleet
from tests.chart.live.shell import Shell

# Each is somewhere in the fleet in plain text, as a careless program would have put it there.
CARELESS = ("plain-text-credential", "in-a-file-by-mistake", "p%40ss-w0rd-of-redis", "p@ss-w0rd-of-redis")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return headrace(capsys)


@pytest.fixture
def talkative(fleet: Fleet) -> Fleet:
    """Every log, page and event repeats every secret, in several spellings."""
    spelled = [
        s for each in SECRETS.values() for s in (each, quote(each, safe=""), json.dumps(each), encoded(each))
    ]
    careless = "\n".join([*spelled, "connecting with password p@ss-w0rd-of-redis", "bye"])
    for pod in fleet.api.store.every("Pod", NAMESPACE):
        container = pod["spec"]["containers"][0]
        where = (NAMESPACE, pod["metadata"]["name"], container["name"])
        fleet.api.scripts.logs[where] = fleet.api.scripts.previous[where] = f"hello\n{careless}\n"
        page = f'# HELP x {quote(careless)}\nx{{model="m"}} 1\n'
        fleet.api.scripts.pages[
            where[0], where[1], str(container["ports"][0]["containerPort"]), "metrics"
        ] = page
    fleet.container(fleet.pods("gateway")[0], restartCount=2)
    pod = fleet.pods("gateway")[0]["metadata"]
    named = {"kind": "Pod", "name": pod["name"], "namespace": NAMESPACE}
    event = {"metadata": {"name": "e", "namespace": NAMESPACE}, "involvedObject": named, "reason": "BackOff"}
    fleet.api.store.create("Event", event | {"type": "Warning", "message": f"env {careless}", "count": 7})
    return fleet


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = {each.name.partition("/")[2]: archive.extractfile(each) for each in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_the_bundle_has_what_an_investigation_needs(
    talkative: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    said = run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    assert said.code == 0 and said.err == "", said
    found = members(to)
    gateway = talkative.pods("gateway")[0]["metadata"]["name"]
    assert {
        "status.json",
        "versions.json",
        "events.txt",
        "notes.txt",
        "settings/headrace-gateway/gateway.toml",
        "objects/rayservices.yaml",
        "objects/rayclusters.yaml",
        "objects/nodes.yaml",
        "objects/secrets.yaml",
        f"metrics/{gateway}.txt",
        f"pods/{gateway}/gateway.log",
        f"pods/{gateway}/gateway.previous.log",
    } <= set(found)
    assert found[f"pods/{gateway}/gateway.log"].startswith(b"hello\n")
    assert b"BackOff Pod/" in found["events.txt"] and b" x7: " in found["events.txt"]
    assert b"max_turns = 64" in found["settings/headrace-gateway/gateway.toml"]
    assert json.loads(found["versions.json"])["server"] == "v1.37.0"
    assert len(list(yaml.safe_load_all(found["objects/pods.yaml"]))) == 6
    assert to.stat().st_mode & 0o777 == 0o600


def test_no_secret_is_in_the_bundle_in_any_spelling(
    talkative: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    whole = b"".join(members(to).values())
    for secret in (*SECRETS.values(), *CARELESS):
        for spelling in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], encoded(secret)):
            assert spelling.encode() not in whole
    assert b"********" in whole and b"HEADRACE_LOG_LEVEL" in whole and b"info" in whole


@pytest.mark.parametrize("user", ["owner", "alice"])
def test_what_an_operator_reads_stays_readable(
    api: ApiServer,
    fleet: Fleet,
    run: Callable[..., Said],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
) -> None:
    """Whether Secrets can be read or not, and though they repeat names of the release."""
    access = f"user default on >aclpassword ~* +@all\nuser {MODEL} on >a-word-of-gateway\n"
    data = {"users.acl": encoded(access), "model": encoded(MODEL), "image": encoded("registry.example")}
    secret = {"metadata": {"name": "more", "namespace": NAMESPACE}, "data": data}
    fleet.api.store.create("Secret", secret)
    allow(api, "alice", bundle=True)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(user, NAMESPACE)))
    run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    for plural, kind in (("pods", "Pod"), ("deployments", "Deployment"), ("rayservices", "RayService")):
        shown = list(yaml.safe_load_all(members(to)[f"objects/{plural}.yaml"]))
        assert [comparable(each) for each in shown] == [
            comparable(each) for each in fleet.api.store.every(kind, NAMESPACE)
        ]
    report = json.loads(members(to)["status.json"])
    assert report["models"][0]["model"] == MODEL and len(report["pods"]) == 6


def comparable(item: dict[str, Any]) -> str:
    """All of an object but what is masked in it or left out of it."""
    item["metadata"].pop("managedFields", None)
    return json.dumps(item, sort_keys=True).replace("plain-text-credential", "********")


def test_of_secrets_the_bundle_has_names_and_sizes(
    fleet: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    """helm's record of a release holds its generated secrets; values may be binary, or too short to be sought."""
    manifest = f"kind: Secret\ndata:\n  link-token: {encoded(SECRETS['link-token'])}\n"
    record = base64.b64encode(gzip.compress(json.dumps({"manifest": manifest}).encode()))
    values = {"release": record, "binary": bytes(range(128, 160)), "short": b"pw"}
    data = {name: base64.b64encode(value).decode() for name, value in values.items()}
    item = {"metadata": {"name": "sh.helm.release.v1.headrace.v1", "namespace": NAMESPACE}, "data": data}
    fleet.api.store.create("Secret", item | {"type": "helm.sh/release.v1"})
    run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    shown = members(to)["objects/secrets.yaml"].decode()
    assert not any(value in shown for value in (*data.values(), record.decode()))
    assert "(32 bytes)" in shown and "(2 bytes)" in shown
    for each in yaml.safe_load_all(shown):
        assert each["kind"] == "Secret"
        assert all(value.startswith("******** (") for value in each["data"].values())


def test_objects_in_the_bundle_say_what_they_are(
    fleet: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    pod = next(yaml.safe_load_all(members(to)["objects/pods.yaml"]))
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")


def test_a_pod_that_does_not_answer_is_a_note_in_the_bundle(
    fleet: Fleet, run: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cli.cluster.kube.TIMEOUT", (5.0, 2.0))
    fleet.api.silent.add(pod := fleet.pods("gateway")[0]["metadata"]["name"])
    said = run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    assert said.code == 0 and f"metrics of {pod}: no answer: silent for 2 s" in said.err
    assert f"pods/{pod}/gateway.log" in members(to)


def test_a_user_who_may_not_read_secrets_gets_the_rest_and_a_warning(
    talkative: Fleet,
    api: ApiServer,
    run: Callable[..., Said],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow(api, "alice", bundle=True)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig("alice", NAMESPACE)))
    said = run("cluster", "bundle", "--to", str(to := tmp_path / "b.tar.gz"))
    assert said.code == 0 and "Secrets could not be read" in said.err
    found = members(to)
    assert "objects/secrets.yaml" not in found
    objects = b"".join(text for name, text in found.items() if name.startswith(("objects/", "settings/")))
    for credential in CARELESS:
        assert credential.encode() not in objects


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(
    fleet: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    said = run("cluster", "bundle", "--to", str(tmp_path / "no" / "b.tar.gz"))
    assert said.code == 1 and "cannot be written: No such file or directory" in said.err
    assert said.err.count("\n") == 1 and not (tmp_path / "no").exists()


def test_only_its_owner_may_read_the_bundle_whatever_stands_in_its_place(
    fleet: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    """Files that anybody may read, and links to them: of the file's own name, and of one that is easily guessed."""
    (other := tmp_path / "other").write_text("mine")
    other.chmod(0o644)
    (to := tmp_path / "b.tar.gz").symlink_to(other)
    (part := tmp_path / "b.tar.gz.part").write_text("")
    part.chmod(0o644)
    assert run("cluster", "bundle", "--to", str(to)).code == 0
    assert to.stat().st_mode & 0o777 == 0o600 and not to.is_symlink() and members(to)
    assert other.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.glob("*b.tar*")) == [to.name, part.name]


# --- the Roles that the command prints are enough, and none is too much


def allow(api: ApiServer, user: str, **what: bool) -> None:
    for item in roles(NAMESPACE, user_named(user), **what):
        api.store.create(item["kind"], item)


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ({}, ("status",)),
        ({"drain": True}, ("drain", "gpu-1", "--dry-run")),
        ({"drain": True}, ("drain", "gpu-1", "--patience", "0")),
        ({"bundle": True, "secrets": True}, ("bundle", "--to", "/dev/null")),
    ],
)
def test_the_printed_roles_suffice(
    api: ApiServer,
    talkative: Fleet,
    run: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    what: dict[str, bool],
    arguments: tuple[str, ...],
) -> None:
    allow(api, "alice", **what)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig("alice", NAMESPACE)))
    arguments = tuple(each.replace("/dev/null", str(tmp_path / "b.tar.gz")) for each in arguments)
    said = run("cluster", *arguments)
    assert "forbidden" not in said.out + said.err and "may not" not in said.out + said.err


def test_every_rule_of_the_roles_is_used(
    api: ApiServer, talkative: Fleet, run: Callable[..., Said], tmp_path: Path
) -> None:
    for arguments in (
        ("status",),
        ("bundle", "--to", str(tmp_path / "b.tar.gz")),
        ("drain", "gpu-1", "--dry-run"),
    ):
        run("cluster", *arguments)
    asked = " ".join(f"{method} {path}" for method, path in api.requests)
    for item in roles(NAMESPACE, user_named("alice"), drain=True, bundle=True, secrets=True):
        for rule in item.get("rules", ()):
            for resource in rule["resources"]:
                plural, _, part = resource.partition("/")
                assert f"/{plural}" in asked and f"/{part}" in asked, resource


def test_the_roles_are_printed_for_kubectl(fleet: Fleet, run: Callable[..., Said], shell: Shell) -> None:
    said = run("cluster", "role", "-n", NAMESPACE, "--account", "ops:bot", "--drain")
    assert "&id" not in said.out
    assert shell.kubectl("apply", "--server-side", "-f", "-", said=said.out).count("serverside-applied") == 4
    found = list(yaml.safe_load_all(said.out))
    assert [each["kind"] for each in found] == ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]
    assert found[1]["subjects"] == [{"kind": "ServiceAccount", "name": "bot", "namespace": "ops"}]
    assert not any("secrets" in rule["resources"] for rule in found[0]["rules"])
