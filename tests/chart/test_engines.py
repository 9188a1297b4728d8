"""What an entry of `models` becomes: clusters, their times, disks, budgets and settings; and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeDeploySchema

from cluster.models.planner import NODE
from cluster.serving.app import SHUTDOWN_MARGIN_S
from cluster.serving.settings import AppSettings, with_secrets
from deploy.chart.comments import CHART
from tests.chart.cases import PRODUCTION
from tests.chart.checks.serving import bounds, override, serve_config
from tests.chart.helm import HelmRefused, Question, objects, rendered
from tests.chart.manifests import Manifests

MODEL = "gpt-oss-120b"
SECRETS = {"HEADRACE_LINK_TOKEN": "token", "HEADRACE_REDIS_URL": "redis://store:6379/0"}
Entry = dict[str, Any]
USUAL: Entry = yaml.safe_load(PRODUCTION.read_text())["models"][MODEL]


def asked(entry: Entry, chart: Path = CHART, **other: Any) -> Question:
    sets = [f"models.{MODEL}={json.dumps(over(USUAL, entry))}"]
    sets += [f"{key}={json.dumps(value)}" for key, value in other.items()]
    return Question((PRODUCTION,), tuple(sets), chart=chart)


def over(base: Entry, entry: Entry) -> Entry:
    both = {key: over(base[key], entry[key]) for key in base.keys() & entry if isinstance(entry[key], dict)}
    return base | entry | both


def made(entry: Entry, **other: Any) -> Manifests:
    return Manifests(objects(asked(entry, **other)))


def service(entry: Entry, **other: Any) -> Any:
    return made(entry, **other).named("RayService", f"headrace-{MODEL}")


def worker(entry: Entry, **other: Any) -> Any:
    (group,) = service(entry, **other)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return group


def args(entry: Entry) -> AppSettings:
    """What the application's own code makes of the rendered args."""
    told = serve_config(service(entry))["applications"][0]["args"]
    return AppSettings.model_validate(with_secrets(told, SECRETS))


def code_version(entry: Entry) -> str:
    """By which Serve knows whether all replicas are to be replaced."""
    (app,) = ServeDeploySchema.model_validate(serve_config(service(entry))).applications
    return get_app_code_version(app)


TWO_NODES = {
    "tensorParallelSize": 8,
    "pipelineParallelSize": 2,
    "nodes": 2,
    "gpu": {"perReplica": 16, "perNode": 8},
}


LAYOUTS: list[tuple[Entry, str]] = [
    (
        {"upgrade": {"deletionDelaySeconds": 300}},
        "deletionDelaySeconds is 300, but a turn may take 600 s",
    ),
    (TWO_NODES | {"nodes": 3}, "nodes is 3, which does not divide its 16 shards"),
    (
        {"tensorParallelSize": 4},
        "gpu.perReplica is 2, but tensorParallelSize times pipelineParallelSize is 4",
    ),
    ({"gpu": {"perReplica": 2, "perNode": 1}}, "gpu.perNode is 1 on 1 nodes, but gpu.perReplica is 2"),
    ({"gpu": {"kind": "l4", "perReplica": 0, "perNode": 0}}, "gpu.perReplica is 0: say how many"),
    (
        {"tensorParallelSize": 16, "gpu": {"kind": "h100", "perReplica": 16, "perNode": 0}},
        f"gpu.perNode is 16, and no machine has more than {NODE} GPUs of a kind",
    ),
    (
        TWO_NODES | {"tensorParallelSize": 16, "pipelineParallelSize": 1},
        "tensorParallelSize is 16, which does not divide the 8 GPUs of a node",
    ),
    (
        {"checkpoint": {"source": "made"}},
        "source is made, a small test model for CPUs, but gpu.perReplica is 2",
    ),
    ({"pdb": {"minAvailable": 2}}, "pdb.minAvailable is 2 and the model has as few as 2 workers"),
    (
        {"autoscaling": {"enabled": True, "minReplicas": 1}, "pdb": {"minAvailable": 1}},
        "pdb.minAvailable is 1 and the model has as few as 1 workers",
    ),
    ({"maxNumSeqs": 512}, "capacity is 256, below maxNumSeqs, which is 512"),
]


@pytest.mark.parametrize(("entry", "sentence"), LAYOUTS)
def test_a_model_that_cannot_be_laid_out_is_refused(entry: Entry, sentence: str) -> None:
    with pytest.raises(HelmRefused) as told:
        rendered(asked(entry))
    assert f"models.{MODEL}." in str(told.value) and sentence in str(told.value)


@pytest.mark.parametrize(("longest", "delay"), [(600, 660), (1800.5, 1861)])
def test_an_old_cluster_outlives_the_longest_turn(longest: float, delay: int) -> None:
    spec = service({}, **{"gateway.settings.max_turn_seconds": longest})["spec"]
    assert spec["rayClusterDeletionDelaySeconds"] == delay


def test_the_seconds_of_a_workers_end_add_up_and_the_head_ends_after_it() -> None:
    cluster = service({"drainGraceSeconds": 100})["spec"]["rayClusterConfig"]
    times = []
    for part in (cluster["workerGroupSpecs"][0], cluster["headGroupSpec"]):
        spec = part["template"]["spec"]
        env = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
        times += [int(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]), spec["terminationGracePeriodSeconds"]]
    assert times == [120, 135, 130, 145]
    assert times[0] >= 100 + SHUTDOWN_MARGIN_S


def test_versions_and_margins_are_those_of_the_locks_and_the_code() -> None:
    facts = (CHART / "templates/engine/_facts.tpl").read_text()
    locks = Path("deploy/requirements/gpu.txt").read_text()
    ray = re.search(r"^ray\[?\S*==([\d.]+)", locks, re.M)
    assert ray and f"\n{ray.group(1)}\n" in facts
    assert f'"headrace.serveMargin" -}}}}\n{SHUTDOWN_MARGIN_S:.0f}\n' in facts


def test_nothing_of_the_charts_version_or_labels_reaches_a_ray_cluster(tmp_path: Path) -> None:
    """The engine's image is the operator's to pin: its tag is the chart's appVersion where nobody says one."""
    chart = tmp_path / "headrace"
    shutil.copytree(CHART, chart)
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r'\1: "9.9.9"', about))
    pinned = {"images.engine.tag": "0.1.0"}
    labelled = {"commonLabels": {"team": "a"}, "commonAnnotations": {"example.com/a": "b"}}
    now = objects(asked({}, **pinned))
    later = objects(asked({}, chart, **pinned, **labelled))
    first, second = (next(each for each in found if each["kind"] == "RayService") for found in (now, later))
    assert first["metadata"]["labels"] != second["metadata"]["labels"]
    assert first["spec"] == second["spec"]


def test_kuberays_own_services_still_find_the_head() -> None:
    """The head's Service of a RayService selects app.kubernetes.io/name: kuberay, which a template's label replaces."""
    cluster = service({})["spec"]["rayClusterConfig"]
    for part in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert "app.kubernetes.io/name" not in part["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("entry", "stay"),
    [
        ({"replicas": 3}, 2),
        ({"replicas": 1}, None),
        (TWO_NODES | {"replicas": 3}, 4),
        ({"replicas": 3, "pdb": {"minAvailable": 1}}, 1),
        ({"replicas": 3, "pdb": {"enabled": False}}, None),
        ({"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 9}}, 1),
    ],
)
def test_a_budget_keeps_all_but_one_replica(entry: Entry, stay: int | None) -> None:
    """An integer, and minAvailable: KubeRay's pods have no scale subresource."""
    found = made(entry).named("PodDisruptionBudget", f"headrace-{MODEL}")
    assert (found and found["spec"]["minAvailable"]) == stay
    assert found is None or "maxUnavailable" not in found["spec"]


def test_workers_of_one_node_are_ready_when_their_replica_listens_and_others_when_ray_is_well() -> None:
    one, two = (worker(entry)["template"]["spec"]["containers"][0] for entry in ({}, TWO_NODES))
    assert one["readinessProbe"]["tcpSocket"] == {"port": "link"}
    assert two["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": "agent"}


def test_a_replica_over_two_nodes_has_two_workers() -> None:
    group = worker(TWO_NODES | {"replicas": 2})
    assert (group["numOfHosts"], group["replicas"], group["maxReplicas"]) == (1, 4, 4)
    app = args(TWO_NODES | {"replicas": 2})
    assert (app.settings.nodes, app.settings.num_gpus) == (2, 8)
    assert bounds(service(TWO_NODES | {"replicas": 2})) == (2, 2)


SCALED: Entry = {"autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 3}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"replicas": 2}, {"replicas": 5}),
        (SCALED, over(SCALED, {"autoscaling": {"minReplicas": 0, "maxReplicas": 8, "targetTurns": 48}})),
    ],
)
def test_another_number_of_replicas_replaces_none_of_them(before: Entry, after: Entry) -> None:
    assert serve_config(service(before)) != serve_config(service(after))
    assert code_version(before) == code_version(after)
    other = {"capacity": 300}
    assert code_version(over(before, other)) != code_version(before)


def test_ray_scales_between_the_bounds_and_a_sleeping_model_has_no_worker() -> None:
    entry = {"autoscaling": {"enabled": True, "minReplicas": 0, "maxReplicas": 3}, "capacity": 200}
    cluster = service(entry)["spec"]["rayClusterConfig"]
    group = cluster["workerGroupSpecs"][0]
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 3)
    assert "serviceAccountName" not in cluster["headGroupSpec"]["template"]["spec"]  # KubeRay makes it
    assert bounds(service(entry)) == (0, 3)
    assert override(service(entry))["autoscaling_config"]["target_ongoing_requests"] == 64


def test_equal_bounds_need_no_autoscaler() -> None:
    cluster = service({"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 2}})["spec"][
        "rayClusterConfig"
    ]
    assert "enableInTreeAutoscaling" not in cluster and "autoscalerOptions" not in cluster


def checkpoint(entry: Entry) -> tuple[Any, Any, Any, Any]:
    """Volume, mount, init container and disk asked for."""
    spec = worker(entry)["template"]["spec"]
    container = spec["containers"][0]
    volume = next((each for each in spec["volumes"] if each["name"] == "checkpoint"), None)
    mount = next((each for each in container["volumeMounts"] if each["name"] == "checkpoint"), None)
    disk = container["resources"]["requests"].get("ephemeral-storage")
    return volume, mount, next(iter(spec.get("initContainers", ())), None), disk


def test_a_claim_is_mounted_as_it_is() -> None:
    volume, mount, init, disk = checkpoint({})
    assert volume["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}
    assert (mount["mountPath"], mount["readOnly"]) == (f"/models/{MODEL}", True)
    assert init is None and disk is None


def test_what_comes_from_the_hub_is_fetched_onto_a_disk_that_the_scheduler_looked_for() -> None:
    token = {"name": "hub-token", "key": "token"}
    entry = {
        "checkpoint": {
            "source": "hub",
            "repository": "o/m",
            "revision": "c0",
            "size": "70G",
            "tokenSecret": token,
        }
    }
    volume, mount, init, disk = checkpoint(entry)
    assert volume["emptyDir"] == {"sizeLimit": "70G"} and disk == "70G"
    assert mount == {"name": "checkpoint", "mountPath": "/models", "readOnly": True}
    assert init["command"] == [
        "headrace",
        "fetch",
        "o/m",
        "--wait",
        "--revision",
        "c0",
        "--to",
        f"/models/{MODEL}",
    ]
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}} in init["env"]
    assert "HF_HUB_OFFLINE" not in {each["name"] for each in init["env"]}


def test_a_storage_class_makes_a_volume_for_each_worker() -> None:
    entry = {"checkpoint": {"source": "hub", "storageClass": "nvme", "size": "70G"}}
    volume, _, _, disk = checkpoint(entry)
    claim = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("nvme", "70G")
    assert disk is None


def test_a_nodes_folder_is_mounted_or_filled_once_for_all_its_pods() -> None:
    there = {"source": "node", "path": "/var/models/weights"}
    volume, mount, init, _ = checkpoint({"checkpoint": there})
    assert volume["hostPath"]["path"] == "/var/models/weights" and init is None and "subPath" not in mount
    volume, mount, init, _ = checkpoint({"checkpoint": there | {"repository": "o/m"}})
    assert volume["hostPath"]["path"] == "/var/models"
    assert init["command"][-2:] == ["--to", "/models/weights"] and "--wait" in init["command"]
    assert (mount["mountPath"], mount["subPath"]) == (f"/models/{MODEL}", "weights")


def test_an_invented_answer_needs_no_checkpoint_and_no_gpu() -> None:
    entry = {"engine": "sim", "gpu": {"kind": "", "perReplica": 0, "perNode": 0}, "sim": {"mean_length": 64}}
    assert checkpoint(entry) == (None, None, None, None)
    settings = args(entry).settings
    assert (settings.engine, settings.sim.mean_length, settings.vllm) == ("sim", 64, None)


def test_a_replica_without_gpus_takes_its_pods_cores_so_that_there_is_one_in_each() -> None:
    requests = {"cpu": "2500m", "memory": "8Gi"}
    entry = {"tensorParallelSize": 1, "gpu": {"kind": "", "perReplica": 0, "perNode": 0}}
    entry |= {"resources": {"worker": {"requests": requests}}}
    assert worker(entry)["rayStartParams"]["num-cpus"] == "2"
    assert args(entry).settings.num_cpus == 2


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ({}, "6Gi"),
        (TWO_NODES, "18Gi"),
        ({"tensorParallelSize": 1, "gpu": {"perReplica": 1, "perNode": 1}}, "2Gi"),
    ],
)
def test_shared_memory_grows_with_the_shards_of_a_node(entry: Entry, size: str) -> None:
    shm = worker(entry)["template"]["spec"]["volumes"][0]
    assert shm == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def test_workers_run_on_nodes_with_the_gpus_of_their_kind() -> None:
    spec = worker({"gpu": {"products": ["NVIDIA-H100-80GB-HBM3"]}})["template"]["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}
    ]
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
