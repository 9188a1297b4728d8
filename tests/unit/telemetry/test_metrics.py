"""Names and labels of metrics: complete, bounded, and gone with what they tell of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.telemetry import names as cluster
from services.telemetry import metrics
from services.telemetry.figures import Figures
from services.telemetry.names import all_names

CONTENT = {"turn", "session", "key", "prompt", "message", "text", "user"}


def test_the_list_has_every_form_of_a_histogram_and_what_comes_out_of_rays_port() -> None:
    names = {name.name: name for name in all_names()}
    assert names["headrace_ttft_seconds_bucket"].labels == ("model", "le")
    assert {"headrace_ttft_seconds_sum", "headrace_ttft_seconds_count"} <= set(names)
    assert names["headrace_tenant_tokens_total"].labels == ("tenant", "model", "kind")
    assert names["ray_headrace_scaling_decisions_total"].type == "counter"
    assert "ray_headrace_replica_load_seconds_bucket" in names


def test_the_command_prints_the_list_as_json() -> None:
    command = [sys.executable, "-m", "services.telemetry.names"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [entry["name"] for entry in told] == [name.name for name in all_names()]


def test_names_are_ours_and_labels_are_never_of_single_turns() -> None:
    for name in all_names():
        assert name.name.startswith(("headrace_", "ray_headrace_")), name
        assert name.help, name
        assert not CONTENT & set(name.labels), name
        if name.type == "counter":
            assert name.name.endswith("_total"), name


def test_the_clusters_table_repeats_no_name() -> None:
    assert len({metric.name for metric in cluster.ALL}) == len(cluster.ALL)


def test_the_first_tenants_keep_their_labels_and_all_later_ones_share_one() -> None:
    labels = metrics.TenantLabels(most=2)
    assert [labels.of(tenant) for tenant in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


WORKER = """
from services.telemetry import metrics
links = metrics.LinkMeter()
for replica in ("gone", "here"):
    links.connected("m", replica)
    metrics.ENGINE_RUNNING.labels("m", replica).set(3)
links.down("m", "gone")
links.connected("m", "gone")
links.connected("m", "here")
links.down("m", "gone")
links.forget("m", "gone")
"""


def samples(folder: Path) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["replica"]): sample.value
        for metric in Figures(str(folder)).collect()
        for sample in metric.samples
        if "replica" in sample.labels
    }


def test_a_replica_that_is_no_more_has_no_figures(tmp_path: Path) -> None:
    """Else a link that is down would alarm for ever, and sums would count its load."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    # Its files stay, as those of a worker that still runs.
    subprocess.run([sys.executable, "-c", WORKER], check=True, env=environment)
    told = samples(tmp_path)
    assert told["headrace_link_up", "here"] == 1
    assert told["headrace_engine_running", "here"] == 3
    assert ("headrace_link_up", "gone") not in told
    assert ("headrace_engine_running", "gone") not in told
    assert told["headrace_link_reconnects_total", "gone"] == 1


@pytest.mark.parametrize("metric", cluster.ALL, ids=lambda metric: metric.name)
def test_a_name_given_to_ray_is_one_that_prometheus_takes(metric: cluster.Metric) -> None:
    assert metric.name.replace("_", "").isalnum() and metric.name.islower()
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
