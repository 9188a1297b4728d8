"""The application that Ray Serve is given, by file or by serveConfigV2."""

import warnings
from typing import Any

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as built
from ray.serve.schema import ServeDeploySchema

from cluster.scaling.settings import ScalingSettings
from cluster.serving.app import POLICY, application, autoscaling
from cluster.serving.settings import AppSettings, with_secrets

SECRET = "a-link-token-nobody-may-see"
ENV = {"HEADRACE_LINK_TOKEN": SECRET, "HEADRACE_REDIS_URL": "redis://:pw@127.0.0.1:1/0"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def args(**fields: Any) -> dict[str, Any]:
    return {"replicas": 2, "settings": {"model": "org/sim", "engine": "sim", "port": 50061}} | fields


def deployment(**fields: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Serve's, of its metrics_interval_s
        return built(application, args(**fields))._bound_deployment


def test_serve_builds_the_application_from_the_args_of_a_config() -> None:
    made = deployment()
    assert (made.name, made.num_replicas) == ("org-sim", 2)
    [settings] = made.init_args
    assert settings.link_token.get_secret_value() == SECRET and settings.port == 50061


def test_bounds_and_target_are_not_in_what_serve_counts_to_the_code() -> None:
    """Another policy or other kwargs of it would replace every replica."""

    def policy(**fields: Any) -> Any:
        return autoscaling("m", ScalingSettings(**fields))["policy"]

    assert policy(max_replicas=2) == policy(min_replicas=0, max_replicas=9, target_turns=5)
    assert policy(max_replicas=2) != policy(max_replicas=2, kv_target=0.5)


def test_serves_own_schema_takes_a_config_with_these_args() -> None:
    app = {"name": "m", "route_prefix": None, "import_path": "cluster.serving.app:application"}
    scaling = {"max_replicas": 4}
    ServeDeploySchema.model_validate({"applications": [app | {"args": args(autoscaling=scaling)}]})


def test_with_autoscaling_our_law_decides_and_serves_delays_do_nothing() -> None:
    scaling = {"min_replicas": 0, "max_replicas": 5, "target_turns": 8, "upscale_delay_seconds": 7}
    config = deployment(autoscaling=scaling)._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.initial_replicas) == (0, 5, None)
    assert config.upscale_delay_s == config.downscale_delay_s == config.downscale_to_zero_delay_s == 0
    assert config.get_upscaling_factor() == config.get_downscaling_factor() == 1
    assert config.policy.policy_function == POLICY
    assert config.target_ongoing_requests == 8 <= deployment()._deployment_config.max_ongoing_requests
    assert config.policy.policy_kwargs["settings"]["upscale_delay_seconds"] == 7
    assert SECRET not in str(config) and "pw@" not in str(config)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"autoscalling": {}}, "autoscalling"),
        ({"autoscaling": {"max_replicas": 2, "target": 3}}, "autoscaling.target"),
        ({"autoscaling": {"min_replicas": 1}}, "autoscaling.max_replicas"),
        ({"settings": {"model": "m", "engine": "sim", "prot": 1}}, "settings.prot"),
        ({"settings": {"model": "m", "engine": "sim", "link_token": ""}}, "settings.link_token"),
        ({"settings": 3}, "settings"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is_shown(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as refusal:
        deployment(**wrong)
    assert SECRET not in str(refusal.value) and "pw@" not in str(refusal.value)


def test_the_version_changes_with_what_a_replica_is_told_and_not_with_their_number() -> None:
    def version(env: dict[str, str] = ENV, **fields: Any) -> str:
        return AppSettings.model_validate(with_secrets(args(**fields), env)).version()

    other = {"settings": args()["settings"] | {"capacity": 9}}
    assert version() == version(replicas=5) == version(autoscaling={"max_replicas": 3})
    assert len({version(), version(**other), version(ENV | {"HEADRACE_LINK_TOKEN": "another"})}) == 3
