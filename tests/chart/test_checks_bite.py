"""Each check sees what it is there for: a sound rendering is broken in one place, and the check says so."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.chart.cases import question
from tests.chart.checks.all import CHECKS
from tests.chart.manifests import Manifests, manifests

Break = Callable[[Manifests], object]


def item(m: Manifests, kind: str, name: str = "") -> Any:
    return next(each for each in m.of(kind) if name in each["metadata"]["name"])


def gateway(m: Manifests) -> Any:
    return item(m, "Deployment")["spec"]["template"]["spec"]


def first(m: Manifests) -> Any:
    return gateway(m)["containers"][0]


def secret(m: Manifests) -> Any:
    return next(each for each in first(m)["env"] if "valueFrom" in each)["valueFrom"]["secretKeyRef"]


def mount(m: Manifests, path: str) -> Any:
    return next(each for each in first(m)["volumeMounts"] if path in each["mountPath"])


def store(m: Manifests) -> Any:
    return item(m, "StatefulSet")["spec"]["template"]["spec"]


def cluster(m: Manifests) -> Any:
    return item(m, "RayService")["spec"]["rayClusterConfig"]


def head(m: Manifests) -> Any:
    return cluster(m)["headGroupSpec"]["template"]["spec"]


def workers(m: Manifests) -> Any:
    return cluster(m)["workerGroupSpecs"][0]


def worker(m: Manifests) -> Any:
    return workers(m)["template"]["spec"]


def policy(m: Manifests, name: str) -> Any:
    return item(m, "NetworkPolicy", name)["spec"]


def serve(m: Manifests, change: Callable[[Any], object]) -> None:
    spec = item(m, "RayService")["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    change(config)
    spec["serveConfigV2"] = yaml.safe_dump(config)


def settings(m: Manifests, change: Callable[[Any], object]) -> None:
    serve(m, lambda config: change(config["applications"][0]["args"]["settings"]))


def override(m: Manifests, change: Callable[[Any], object]) -> None:
    serve(m, lambda config: change(config["applications"][0]["deployments"][0]))


def toml(m: Manifests, old: str, new: str) -> None:
    data = next(each["data"] for each in m.of("ConfigMap") if "gateway.toml" in each.get("data", {}))
    assert old in data["gateway.toml"]
    data["gateway.toml"] = data["gateway.toml"].replace(old, new)


def drop(m: Manifests, kind: str, name: str = "") -> None:
    m.objects.remove(item(m, kind, name))


def again(m: Manifests, kind: str, **metadata: str) -> None:
    found = Manifests([item(m, kind)]).copy().objects[0]
    found["metadata"] |= metadata
    m.objects.append(found)


def ingress(m: Manifests, name: str, rule: Any) -> None:
    policy(m, name)["ingress"].append(rule)


BREAKS: list[tuple[str, str, str, Break]] = [
    ("workloads_select_their_pods", "production", "does not match its own",
     lambda m: item(m, "Deployment")["spec"]["template"]["metadata"]["labels"].clear()),
    ("workloads_select_their_pods", "production", "cannot be upgraded",
     lambda m: (item(m, "Deployment")["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/version": "1"}))),
    ("workloads_do_not_share_pods", "trial", "as well",
     lambda m: item(m, "StatefulSet")["spec"]["template"]["metadata"].update(
         labels=item(m, "Deployment")["spec"]["template"]["metadata"]["labels"])),
    ("services_reach_one_workload", "production", "nothing",
     lambda m: item(m, "Service")["spec"]["selector"].update({"app.kubernetes.io/component": "gate"})),
    ("services_reach_one_workload", "trial", "StatefulSet",
     lambda m: item(m, "Service", "gateway")["spec"]["selector"].pop("app.kubernetes.io/component")),
    ("service_ports_exist", "production", "has no port grcp",
     lambda m: item(m, "Service")["spec"]["ports"][0].update(targetPort="grcp")),
    ("ports_are_told_once", "production", "two ports", lambda m: first(m)["ports"][1].update(name="grpc")),
    ("probes_ask_ports_that_exist", "production", "asks port 50059",
     lambda m: first(m)["livenessProbe"]["grpc"].update(port=50059)),
    ("monitors_find_ports", "everything", "0 of them",
     lambda m: item(m, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(port="metricz")),
    ("monitors_find_ports", "everything", "not one",
     lambda m: item(m, "ServiceMonitor")["spec"]["selector"]["matchLabels"].pop("headrace.dev/service")
     and item(m, "Service", "headless")["metadata"]["labels"].clear()),
    ("budgets_guard_one_workload", "production", "guards nothing",
     lambda m: item(m, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(x="y")),
    ("budgets_guard_one_workload", "production", "guards",
     lambda m: item(m, "PodDisruptionBudget", "gpt")["spec"]["selector"]["matchLabels"].pop("ray.io/node-type")),
    ("budgets_guard_one_workload", "production", "lets no node be drained",
     lambda m: item(m, "PodDisruptionBudget", "gateway")["spec"].update(maxUnavailable=0)),
    ("budgets_leave_a_pod_to_go", "production", "no node be drained",
     lambda m: item(m, "PodDisruptionBudget", "gpt")["spec"].update(minAvailable=2)),
    ("budgets_of_ray_count_pods", "production", "whole number",
     lambda m: item(m, "PodDisruptionBudget", "gpt")["spec"].pop("minAvailable")),
    ("pods_have_one_budget", "production", "two budgets", lambda m: again(m, "PodDisruptionBudget", name="again")),
    ("scalers_have_targets_of_their_own", "hpa", "no Deployment",
     lambda m: item(m, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="gateway")),
    ("scalers_have_targets_of_their_own", "hpa", "replicas of its own",
     lambda m: item(m, "Deployment")["spec"].update(replicas=3)),
    ("scalers_have_targets_of_their_own", "keda", "2 scalers", lambda m: again(m, "ScaledObject", name="again")),
    ("scalers_have_room", "hpa", "from 31",
     lambda m: item(m, "HorizontalPodAutoscaler")["spec"].update(minReplicas=31)),
    ("unscaled_workloads_say_replicas", "hpa", "nobody says", lambda m: drop(m, "HorizontalPodAutoscaler")),
    ("pods_are_restricted", "production", "hostNetwork", lambda m: worker(m).update(hostNetwork=True)),
    ("pods_are_restricted", "production", "runAsNonRoot", lambda m: head(m)["securityContext"].pop("runAsNonRoot")),
    ("pods_are_restricted", "production", "seccomp", lambda m: gateway(m)["securityContext"].pop("seccompProfile")),
    ("pods_are_restricted", "hub", "allowPrivilegeEscalation",
     lambda m: worker(m)["initContainers"][0]["securityContext"].pop("allowPrivilegeEscalation")),
    ("pods_are_restricted", "production", "capabilities",
     lambda m: item(m, "Pod")["spec"]["containers"][0]["securityContext"].pop("capabilities")),
    ("pods_are_restricted", "scaling", "autoscaler",
     lambda m: cluster(m)["autoscalerOptions"].pop("securityContext")),
    ("pods_are_restricted", "production", "is a hostPath",
     lambda m: gateway(m)["volumes"].append({"name": "host", "hostPath": {"path": "/"}})),
    ("roots_are_read_only", "trial", "can be written",
     lambda m: store(m)["containers"][0]["securityContext"].pop("readOnlyRootFilesystem")),
    ("tokens_are_mounted_where_needed", "production", "token of the API server",
     lambda m: [each.pop("automountServiceAccountToken") for each in (worker(m), item(m, "ServiceAccount", "engine"))]),
    ("images_say_what_they_are", "production", "no tag",
     lambda m: first(m).update(image="registry:5000/headrace/gateway")),
    ("images_say_what_they_are", "production", "no tag",
     lambda m: worker(m)["containers"][0].update(image="engine:latest")),
    ("containers_ask_for_resources", "production", "memory limit",
     lambda m: worker(m)["containers"][0]["resources"]["limits"].pop("memory")),
    ("references_exist", "production", "Secret other",
     lambda m: secret(m).update(name="other")),
    ("references_exist", "production", "ConfigMap", lambda m: drop(m, "ConfigMap", "gateway")),
    ("references_exist", "production", "ServiceAccount", lambda m: drop(m, "ServiceAccount", "engine")),
    ("references_exist", "trial", "has no key",
     lambda m: item(m, "Secret")["data"].pop("auth_token")),
    ("references_exist", "everything", "ConfigMap other",
     lambda m: item(m, "BackendTLSPolicy")["spec"]["validation"]["caCertificateRefs"][0].update(name="other")),
    ("references_exist", "grpc-route", "Service",
     lambda m: item(m, "GRPCRoute")["spec"]["rules"][0]["backendRefs"][0].update(name="x")),
    ("mounts_have_volumes", "production", "is no volume",
     lambda m: first(m)["volumeMounts"][0].update(name="nothing")),
    ("mounts_have_volumes", "production", "not mounted",
     lambda m: gateway(m)["volumes"].append({"name": "idle", "emptyDir": {}})),
    ("mounts_have_volumes", "mtls", "never sees a renewed",
     lambda m: mount(m, "/certs").update(subPath="tls.crt")),
    ("names_are_taken_once", "production", "rendered twice", lambda m: again(m, "Service")),
    ("names_are_short_enough", "production", "longer than 47",
     lambda m: item(m, "RayService")["metadata"].update(name="a" * 48)),
    ("names_are_short_enough", "production", "label",
     lambda m: item(m, "Service")["metadata"]["labels"].update(x="a" * 64)),
    ("objects_are_in_the_namespace", "production", "is put into default",
     lambda m: item(m, "Service")["metadata"].update(namespace="default")),
    ("gateways_have_time_to_drain", "production", "do not fit",
     lambda m: gateway(m).update(terminationGracePeriodSeconds=60)),
    ("gateways_have_time_to_drain", "production", "do not fit",
     lambda m: gateway(m).pop("terminationGracePeriodSeconds")),
    ("gateways_have_time_to_drain", "production", "do not fit",
     lambda m: first(m)["lifecycle"]["preStop"]["sleep"].update(seconds=60)),
    ("gateways_leave_the_endpoints_first", "production", "before endpoints",
     lambda m: (first(m).pop("lifecycle"), toml(m, "drain_delay = 5", "drain_delay = 0"))),
    ("replicas_have_time_to_drain", "production", "within the drain",
     lambda m: worker(m).update(terminationGracePeriodSeconds=30)),
    ("replicas_have_time_to_drain", "production", "below the replica's",
     lambda m: settings(m, lambda s: s.update(drain_grace_s=900))),
    ("old_clusters_outlive_their_turns", "production", "a turn may take",
     lambda m: item(m, "RayService")["spec"].pop("rayClusterDeletionDelaySeconds")),
    ("ray_is_not_stopped_at_once", "production", "kills the replicas",
     lambda m: worker(m)["containers"][0].update(lifecycle={"preStop": {"exec": {"command": ["ray stop"]}}})),
    ("serve_configs_are_rays", "production", "applications.0.import_path",
     lambda m: serve(m, lambda c: c["applications"][0].update(import_path=5))),
    ("serve_configs_are_rays", "production", "not one application",
     lambda m: serve(m, lambda c: c["applications"][0].update(import_path="cluster.serving.app:other"))),
    ("replicas_take_their_settings", "production", "max_tokens",
     lambda m: settings(m, lambda s: s.update(max_tokens=1))),
    ("replicas_take_their_settings", "production", "for all to read",
     lambda m: settings(m, lambda s: s.update(link_token="x"))),
    ("replicas_take_their_settings", "production", "settings.vllm.max_model_len",
     lambda m: settings(m, lambda s: s["vllm"].update(max_model_len=0))),
    ("replicas_listen_where_policies_let_through", "production", "port 0",
     lambda m: settings(m, lambda s: s.pop("port"))),
    ("shards_have_their_gpus", "production", "has 1 GPUs",
     lambda m: worker(m)["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": 1})),
    ("replicas_and_workers_agree", "production", "replicas", lambda m: workers(m).update(replicas=1, minReplicas=1)),
    ("numbers_are_of_the_deployment_that_the_code_makes", "scaling", "the deployment of gpt-oss-120b is",
     lambda m: override(m, lambda told: told.update(name="gpt-oss"))),
    ("numbers_are_of_the_deployment_that_the_code_makes", "scaling", "autoscaling: max_replicas",
     lambda m: override(m, lambda told: told["autoscaling_config"].update(max_replicas="many"))),
    ("numbers_are_of_the_deployment_that_the_code_makes", "scaling", "upscale_delay_s is not the code's",
     lambda m: override(m, lambda told: told["autoscaling_config"].update(upscale_delay_s=30))),
    ("numbers_are_of_the_deployment_that_the_code_makes", "scaling", "does not go with",
     lambda m: override(m, lambda told: told.update(num_replicas=2))),
    ("gateways_take_their_settings", "production", "max_turns",
     lambda m: toml(m, "max_turns = 512", "max_turns = 0")),
    ("gateways_take_their_settings", "production", "key_pepper",
     lambda m: first(m).update(env=[each for each in first(m)["env"] if each["name"] != "HEADRACE_KEY_PEPPER"])),
    ("gateways_take_their_settings", "several", "not those of the RayServices", lambda m: drop(m, "RayService")),
    ("names_fit", "production", "at most 47", lambda m: item(m, "RayService")["metadata"].update(name="Gpt")),
    ("strategies_are_known", "production", "is Hope",
     lambda m: item(m, "RayService")["spec"]["upgradeStrategy"].update(type="Hope")),
    ("strategies_are_known", "production", "incremental",
     lambda m: item(m, "RayService")["spec"]["upgradeStrategy"].update(type="NewClusterWithIncrementalUpgrade")),
    ("heads_are_unnamed", "production", "has a name",
     lambda m: cluster(m)["headGroupSpec"].update(headService={"metadata": {"name": "x"}})),
    ("groups_are_bounded", "production", "<= 0", lambda m: workers(m).update(maxReplicas=0)),
    ("autoscalers_say_their_version", "scaling", "not v2", lambda m: cluster(m)["autoscalerOptions"].pop("version")),
    ("autoscalers_say_their_version", "scaling", "restartPolicy", lambda m: worker(m).update(restartPolicy="Always")),
    ("fault_tolerance_is_told_once", "production", "shared by two",
     lambda m: cluster(m)["gcsFaultToleranceOptions"].update(externalStorageNamespace="x")),
    ("fault_tolerance_is_told_once", "production", "is refused beside",
     lambda m: head(m)["containers"][0]["env"].append({"name": "RAY_REDIS_ADDRESS", "value": "x"})),
    ("tokens_are_demanded", "production", "mode token", lambda m: cluster(m).pop("authOptions")),
    ("tokens_are_demanded", "production", "no sound", lambda m: cluster(m).update(rayVersion="2.52.1")),
    ("heads_have_the_serve_port", "production", "no port named serve",
     lambda m: head(m)["containers"][0].update(ports=[])),
    ("heads_run_no_model", "production", "placed on it",
     lambda m: cluster(m)["headGroupSpec"]["rayStartParams"].pop("num-cpus")),
    ("start_up_has_no_end", "production", "makes a slow start final",
     lambda m: item(m, "RayService")["metadata"].update(annotations={"ray.io/initializing-timeout": "10m"})),
    ("heads_keep_kuberays_name", "production", "empties KubeRay's own",
     lambda m: cluster(m)["headGroupSpec"]["template"]["metadata"]["labels"].update({"app.kubernetes.io/name": "x"})),
    ("ray_templates_do_not_change_with_the_chart", "production", "second cluster",
     lambda m: workers(m)["template"]["metadata"]["labels"].update({"helm.sh/chart": "headrace-1"})),
    ("policies_cover_every_pod", "production", "restricts its ingress",
     lambda m: drop(m, "NetworkPolicy", "gateway")),
    ("policies_cover_something", "production", "selects no pod",
     lambda m: policy(m, "gateway")["podSelector"]["matchLabels"].update({"app.kubernetes.io/component": "x"})),
    ("needed_flows_are_open", "production", "gateway to replica: port 50061",
     lambda m: policy(m, "gpt")["ingress"].pop(1)),
    ("needed_flows_are_open", "production", "to the store: port 6379",
     lambda m: policy(m, "gateway")["egress"].pop(1)),
    ("needed_flows_are_open", "trial", "may not ask DNS", lambda m: policy(m, "tiny")["egress"].pop(1)),
    ("needed_flows_are_open", "production", "KubeRay to head", lambda m: policy(m, "gpt")["ingress"].pop(2)),
    ("needed_flows_are_open", "production", "Prometheus to Ray", lambda m: policy(m, "gpt")["ingress"].pop(3)),
    ("needed_flows_are_open", "production", "Ray to Ray", lambda m: policy(m, "gpt")["ingress"].pop(0)),
    ("needed_flows_are_open", "scaling", "the API server", lambda m: drop(m, "NetworkPolicy", "ray-autoscaler")),
    ("other_flows_are_shut", "production", "a stranger to",
     lambda m: ingress(m, "gpt", {"from": [{"namespaceSelector": {}}], "ports": [{"port": 8265}]})),
    ("other_flows_are_shut", "production", "gateway to RayService",
     lambda m: (policy(m, "gpt")["ingress"][1].pop("ports"),
                policy(m, "gateway")["egress"].append({"to": [{"podSelector": {}}]}))),
    ("rules_name_peers", "production", "lets everybody in",
     lambda m: ingress(m, "gpt", {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})),
    ("rules_name_peers", "production", "to everywhere", lambda m: policy(m, "gpt")["egress"].append({})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "case", "sentence", "breaks"),
    BREAKS,
    ids=[f"{check}: {sentence}" for check, _, sentence, _ in BREAKS],
)
def test_a_break_is_seen(check: str, case: str, sentence: str, breaks: Break) -> None:
    found = manifests(question(case))
    assert not list(CHECKS[check](found))
    breaks(found)
    assert sentence in "\n".join(CHECKS[check](found))


def test_every_check_has_been_seen_to_fail() -> None:
    assert {check for check, *_ in BREAKS} == set(CHECKS)
