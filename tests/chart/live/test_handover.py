"""Turning an autoscaler on: the number of replicas goes from the chart to the autoscaler without a fall to one."""

import json

import pytest

from tests.chart.apiserver.server import ApiServer
from tests.chart.live.shell import SMALL, Shell

WAITING = ("--wait", "--timeout", "20s")
TAKEN = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"namespace": "default", "name": "one"},
    "spec": {"replicas": 3},
}


@pytest.mark.parametrize(("taken", "left"), [(True, 3), (False, 1)])
def test_a_number_that_is_taken_over_outlives_the_charts(
    api: ApiServer, shell: Shell, taken: bool, left: int
) -> None:
    """UPGRADE.md's step. Without it the number is nobody's, and Kubernetes makes it 1."""
    shell.helm("install", "one", str(SMALL), "--set", "replicas=3", *WAITING)
    if taken:
        how = "apply --server-side --field-manager=until-the-autoscaler --validate=false -f -"
        shell.kubectl(*how.split(), said=json.dumps(TAKEN))
    shell.helm("upgrade", "one", str(SMALL), "--set", "replicas=null", *WAITING)
    spec = api.store.get("Deployment", "default", "one")["spec"]
    assert spec["replicas"] == left
