"""What the chart says to gateways and replicas beyond what the values name."""

import pytest
import yaml

from cluster.scaling.settings import ScalingSettings
from deploy.chart.comments import CHART
from tests.chart.cases import question
from tests.chart.checks.serving import replica_settings, scaling
from tests.chart.manifests import manifests

SLEEPS = 'models.gpt-oss-120b.autoscaling={"enabled": true, "minReplicas": 0}'


def test_turns_are_held_where_a_model_may_sleep() -> None:
    assert "hold" not in manifests(question("production")).gateway_settings()
    assert manifests(question("production", "1.34", SLEEPS)).gateway_settings()["hold"] == 600


def test_an_operators_own_hold_wins() -> None:
    own = manifests(question("production", "1.34", SLEEPS, "gateway.settings.hold=30"))
    assert own.gateway_settings()["hold"] == 30


def test_traces_go_where_the_values_say() -> None:
    traced = manifests(question("everything"))
    told = traced.gateway_settings()
    assert (told["otlp_endpoint"], told["trace_ratio"]) == ("http://collector.tracing.svc:4317", 0.1)
    assert {replica_settings(each)["otlp_endpoint"] for each in traced.of("RayService")} == {
        told["otlp_endpoint"]
    }
    assert "otlp_endpoint" not in manifests(question("production")).gateway_settings()


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("gateway.settings.max_turns=1000000", ("max_turns", 1000000)),
        ("gateway.settings.recovery=0.5", ("recovery", 0.5)),
        ("gateway.settings.journal_bytes=16777216", ("journal_bytes", 16777216)),
        ('gateway.settings.screen=["a\\\\d \\"b\\" é"]', ("screen", ['a\\d "b" é'])),
        ('gateway.settings.efforts={"a.b/c d": "low"}', ("efforts", {"a.b/c d": "low"})),
        ("gateway.settings.reflection=true", ("reflection", True)),
    ],
)
def test_settings_arrive_as_they_were_said(said: str, read: tuple[str, object]) -> None:
    key, value = read
    assert manifests(question("production", "1.34", said)).gateway_settings()[key] == value


def test_the_charts_defaults_of_the_law_are_the_laws_own() -> None:
    """Those that the simulated day was run with; a value of 0 leaves the law's own in place."""
    told = yaml.safe_load((CHART / "values.yaml").read_text())["modelDefaults"]["autoscaling"]
    law = ScalingSettings(max_replicas=told["maxReplicas"])
    names = {
        "ttftBudgetSeconds": law.ttft_budget_seconds,
        "kvTarget": law.kv_target,
        "upscaleDelaySeconds": law.upscale_delay_seconds,
        "downscaleDelaySeconds": law.downscale_delay_seconds,
        "downscaleToZeroDelaySeconds": law.downscale_to_zero_delay_seconds,
    }
    assert {name: told[name] for name in names} == names


SCALES = 'models.gpt-oss-120b.autoscaling={"enabled": true, "maxReplicas": 4}'


@pytest.mark.parametrize(("capacity", "target"), [(256, 64.0), (32, 24.0)])
def test_an_autoscaled_model_is_told_the_laws_own_defaults(capacity: int, target: float) -> None:
    """But where a replica takes few turns: it would never be full."""
    sized = f"models.gpt-oss-120b.capacity={capacity}"
    asked = question(
        "production", "1.34", SCALES, sized, f"models.gpt-oss-120b.maxNumSeqs={min(capacity, 256)}"
    )
    (service,) = manifests(asked).of("RayService")
    assert scaling(service) == ScalingSettings(max_replicas=4, target_turns=target)


def test_turns_are_held_for_an_hour_at_most() -> None:
    held = question("production", "1.34", SLEEPS, "gateway.settings.max_turn_seconds=7200")
    assert manifests(held).gateway_settings()["hold"] == 3600
