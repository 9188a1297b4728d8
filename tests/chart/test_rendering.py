"""The real helm renders the chart, and an API server of each version would take what comes out."""

import pytest

from tests.chart import schemas
from tests.chart.cases import CASES, question
from tests.chart.helm import VERSIONS, HelmRefused, Question, helm, lint, rendered
from tests.chart.manifests import manifests

cases = pytest.mark.parametrize("case", CASES)


@cases
@pytest.mark.parametrize("version", VERSIONS)
def test_an_api_server_takes_every_object(case: str, version: str) -> None:
    found = manifests(question(case, version))
    assert found.objects
    assert not [problem for item in found.objects for problem in schemas.problems(item, version)]


@cases
def test_lint_has_nothing_to_say(case: str) -> None:
    lint(question(case))


@cases
def test_the_same_values_render_the_same_but_for_drawn_secrets(case: str) -> None:
    asked = question(case)
    again = rendered.__wrapped__(asked)
    if "kind: Secret" in again:
        return
    assert again == rendered(asked)


@cases
def test_an_upgrade_renders_what_an_installation_does(case: str) -> None:
    asked = question(case)
    upgrade = Question(asked.files, asked.sets, asked.version, flags=("--is-upgrade",))
    without_secrets = [
        [each for each in manifests(which).objects if each["kind"] != "Secret"] for which in (asked, upgrade)
    ]
    assert without_secrets[0] == without_secrets[1]


def test_a_bare_cluster_renders_what_needs_no_other_operator() -> None:
    asked = question("trial")
    bare = Question(asked.files, apis=("ray.io/v1/RayService",))
    groups = {item["apiVersion"].partition("/")[0] for item in manifests(bare).objects}
    assert groups <= {"v1", "apps", "ray.io", "policy", "networking.k8s.io", "rbac.authorization.k8s.io"}


def test_an_old_cluster_is_refused() -> None:
    with pytest.raises(HelmRefused, match="which is incompatible with Kubernetes"):
        rendered(question("trial", "1.28"))


def test_the_package_has_no_more_than_the_chart(tmp_path: object) -> None:
    said = helm("package", str(question("trial").chart), "--destination", str(tmp_path))
    assert "Successfully packaged" in said


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dta": {}},
            "'dta' was unexpected",
        ),
        (
            {
                "apiVersion": "autoscaling/v2beta2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "x"},
            },
            "has no",
        ),
        (
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "x"},
                "spec": {"containers": [{"name": "c", "env": [{"name": "A"}, {"name": "A"}]}]},
            },
            "env has ('A',) twice",
        ),
        (
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": "x"},
                "spec": {
                    "minReplicaCount": 9,
                    "maxReplicaCount": 3,
                    "scaleTargetRef": {"name": "x"},
                    "triggers": [],
                },
            },
            "minReplicaCount must be less than or equal",
        ),
        (
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GRPCRoute",
                "metadata": {"name": "x"},
                "spec": {"rules": [{"backendRefs": [{"name": "a"}]}]},
            },
            "Must have port for Service reference",
        ),
        (
            {
                "apiVersion": "ray.io/v1",
                "kind": "RayService",
                "metadata": {"name": "x"},
                "spec": {"rayClusterConfig": {"headGroupSpec": {"rayStartParams": {"num-cpus": 0}}}},
            },
            "num-cpus: 0 is not of type 'string'",
        ),
    ],
    ids=["unknown field", "unserved version", "repeated variable", "CEL", "CEL after defaults", "type"],
)
def test_what_an_api_server_refuses_is_seen(item: dict[str, object], sentence: str) -> None:
    assert sentence in "\n".join(schemas.problems(item, "1.34"))
