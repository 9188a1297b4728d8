"""The documents inside the manifests, read by the code that they are meant for."""

import os
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.scaling.settings import ScalingSettings
from cluster.serving.settings import SECRETS, AppSettings, with_secrets
from services.gateway.settings import GatewaySettings
from tests.chart.checks.selectors import name
from tests.chart.helm import Object
from tests.chart.manifests import Manifests

ENVIRONMENT = {"HEADRACE_LINK_TOKEN": "token", "HEADRACE_REDIS_URL": "redis://store:6379/0"}


def serve_config(item: Object) -> Any:
    return yaml.safe_load(item["spec"]["serveConfigV2"])


def replica_settings(item: Object) -> dict[str, Any]:
    return dict(serve_config(item)["applications"][0]["args"]["settings"])


def override(item: Object) -> dict[str, Any]:
    """What serveConfigV2 says of the one deployment: replicas, or Serve's autoscaling."""
    (found,) = serve_config(item)["applications"][0]["deployments"]
    return dict(found)


def bounds(item: Object) -> tuple[int, int]:
    """Replicas at least and at most."""
    told = override(item)
    number = told["num_replicas"]
    scaling = told.get("autoscaling_config", {"min_replicas": number, "max_replicas": number})
    return scaling["min_replicas"], scaling["max_replicas"]


def scaling(item: Object) -> ScalingSettings:
    """What the law is told, by Serve's own fields and by the policy's. Raises ValidationError."""
    config = override(item)["autoscaling_config"]
    least, most = bounds(item)
    live = {"min_replicas": least, "max_replicas": most, "target_turns": config["target_ongoing_requests"]}
    return ScalingSettings.model_validate(config["policy"]["policy_kwargs"]["settings"] | live)


def serve_configs_are_rays(m: Manifests) -> Iterator[str]:
    from ray.serve.schema import ServeDeploySchema

    for item in m.of("RayService"):
        try:
            config = ServeDeploySchema.model_validate(serve_config(item))
        except ValidationError as error:
            yield f"{name(item)}: serveConfigV2: {_brief(error)}"
            continue
        if (
            len(config.applications) != 1
            or config.applications[0].import_path != "cluster.serving.app:application"
        ):
            yield f"{name(item)}: serveConfigV2 is not one application of cluster.serving.app"


def replicas_take_their_settings(m: Manifests) -> Iterator[str]:
    """As the application reads them: secrets from the environment, everything else from `args`."""
    for item in m.of("RayService"):
        arguments = serve_config(item)["applications"][0]["args"]
        told = SECRETS.keys() & arguments["settings"].keys()
        yield from (f"{name(item)}: {each} stands in serveConfigV2, for all to read" for each in sorted(told))
        try:
            AppSettings.model_validate(with_secrets(arguments, ENVIRONMENT))
        except ValidationError as error:
            yield f"{name(item)}: args: {_brief(error)}"


def numbers_are_of_the_deployment_that_the_code_makes(m: Manifests) -> Iterator[str]:
    """Serve refuses a deployment that is not there; what it is told of scaling is what the code would have told it."""
    from cluster.serving.app import autoscaling
    from cluster.serving.names import slug

    for item in m.of("RayService"):
        model, told = replica_settings(item)["model"], override(item)
        if told["name"] != slug(model):
            yield f"{name(item)}: the deployment of {model} is {slug(model)}, not {told['name']}"
        config = told.get("autoscaling_config")
        if (told["num_replicas"] == "auto") != (config is not None):
            yield f"{name(item)}: num_replicas {told['num_replicas']} does not go with autoscaling_config {config}"
        if config is None:
            continue
        try:
            made = autoscaling(model, scaling(item))
        except ValidationError as error:
            yield f"{name(item)}: autoscaling: {_brief(error)}"
            continue
        made["policy"]["policy_kwargs"]["settings"] = config["policy"]["policy_kwargs"][
            "settings"
        ]  # without defaults
        different = sorted(key for key in made.keys() | config.keys() if made.get(key) != config.get(key))
        yield from (f"{name(item)}: autoscaling_config.{key} is not the code's" for key in different)


def replicas_listen_where_policies_let_through(m: Manifests) -> Iterator[str]:
    for item in m.of("RayService"):
        if (port := replica_settings(item).get("port", 0)) != 50061:
            yield f"{name(item)}: the replica listens on port {port}, not on 50061"


def shards_have_their_gpus(m: Manifests) -> Iterator[str]:
    """A worker pod has as many GPUs as Ray is told, and as the replica takes on a node."""
    for pod in m.pods():
        if pod.role != "worker":
            continue
        wanted = replica_settings(pod.owner).get("num_gpus", 0)
        limits = pod.spec["containers"][0]["resources"].get("limits", {})
        given = sum(int(value) for key, value in limits.items() if key.endswith("/gpu"))
        if wanted != given:
            yield f"{pod.name}: has {given} GPUs, the replica takes {wanted} on each node"


def replicas_and_workers_agree(m: Manifests) -> Iterator[str]:
    """Each replica has its pods: one for each of its nodes."""
    for item in m.of("RayService"):
        nodes = replica_settings(item).get("vllm", {}).get("nodes", 1)
        least, most = bounds(item)
        group = item["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
        if (group["minReplicas"], group["maxReplicas"]) != (least * nodes, most * nodes):
            told = f"{group['minReplicas']} to {group['maxReplicas']} pods"
            yield f"{name(item)}: {least} to {most} replicas on {nodes} nodes each, and {told}"


def gateways_take_their_settings(m: Manifests) -> Iterator[str]:
    settings, env = m.gateway_settings(), gateway_environment(m)
    kept = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("HEADRACE_")}
    try:
        read = GatewaySettings(**settings, **env)
    except ValidationError as error:
        yield f"gateway.toml: {_brief(error)}"
        return
    finally:
        os.environ.update(kept)
    if set(read.models) != {
        serve_config(item)["applications"][0]["args"]["settings"]["model"] for item in m.of("RayService")
    }:
        yield f"gateway.toml: models are {sorted(read.models)}, which are not those of the RayServices"


def gateway_environment(m: Manifests) -> dict[str, Any]:
    """Secrets as the variables will bring them; one that is missing is a field that is missing."""
    fakes = {
        "redis_url": "redis://store:6379/0",
        "key_pepper": "pepper",
        "link_token": "token",
        "master_key": "A" * 43 + "=",
    }
    pod = next(pod for pod in m.pods() if pod.component == "gateway" and pod.role == "Deployment")
    names = {each["name"].removeprefix("HEADRACE_").lower() for each in pod.spec["containers"][0]["env"]}
    return {name: fake for name, fake in fakes.items() if name in names}


def _brief(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


CHECKS = (
    serve_configs_are_rays,
    replicas_take_their_settings,
    numbers_are_of_the_deployment_that_the_code_makes,
    replicas_listen_where_policies_let_through,
    shards_have_their_gpus,
    replicas_and_workers_agree,
    gateways_take_their_settings,
)
