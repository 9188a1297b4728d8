"""Commands and files of the chart's documents: what they select and name is rendered, what they show is taken."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from deploy.chart.comments import CHART
from deploy.chart.readme import FRAME
from tests.chart.cases import CASES, question
from tests.chart.helm import Question, rendered
from tests.chart.manifests import Labels, Manifests, manifests

UPGRADE = (CHART / "UPGRADE.md").read_text()
TEXT = FRAME.read_text() + UPGRADE
STORE = CHART.parents[1] / "services" / "store" / "README.md"
BLOCKS = [yaml.safe_load(each) for each in re.findall(r"(?ms)^ *```yaml\n(.*?)```", FRAME.read_text())]
SELECTS = re.compile(r"kubectl (?:-n \w+ )?(?:get|delete|wait) ([\w,]+)(?: [\w=-]+)*? -l ([^\s)\\`]+)")


def labelled(m: Manifests, kind: str) -> Iterator[Labels]:
    """Labels of the objects that kubectl calls `kind`. KubeRay gives a RayCluster those of its RayService."""
    if kind == "pods":
        yield from (pod.labels for pod in m.pods())
    elif kind == "pvc":
        claims = [each["spec"].get("volumeClaimTemplates", ()) for each in m.of("StatefulSet")]
        yield from (claim["metadata"]["labels"] for found in claims for claim in found)
    else:
        name = {"raycluster": "rayservice"}.get(kind, kind)
        yield from (each["metadata"]["labels"] for each in m.objects if each["kind"].lower() == name)


@pytest.mark.parametrize("release", ["headrace", "one"])
def test_every_selector_finds_something(release: str) -> None:
    found = manifests(question("trial", release=release))
    model = found.of("RayService")[0]["metadata"]["labels"]["headrace.dev/model"]
    commands = {(kind, text) for kinds, text in SELECTS.findall(TEXT) for kind in kinds.split(",")}
    assert len(commands) > 7
    for kind, text in commands:
        said = text.replace("RELEASE", release).replace("=headrace", f"={release}").replace("MODEL", model)
        wanted = dict(pair.split("=") for pair in said.split(","))
        assert any(wanted.items() <= labels.items() for labels in labelled(found, kind)), (kind, text)


def test_every_object_that_is_named_is_rendered() -> None:
    found = manifests(question("production"))
    kinds = {"deploy": "Deployment", "service": "Service"}
    named = set(re.findall(r"(?:exec|port-forward) (deploy|service)/([a-z-]+)", TEXT))
    named |= {("service", name) for name in re.findall(r"\b([a-z-]+)\.inference\.svc", TEXT)}
    assert len(named) > 2
    assert not [(kind, name) for kind, name in named if not found.named(kinds[kind], name)]


def test_upgrades_are_not_told_of_names_that_depend_on_the_release() -> None:
    assert "RELEASE-" not in UPGRADE


def test_objects_that_are_shown_are_rendered() -> None:
    shown = [block for block in BLOCKS if "extraObjects" in block]
    assert len(shown) == 2
    for block in shown:
        (item,) = block["extraObjects"]
        sets = (f"extraObjects={json.dumps([item])}",)
        text = rendered(Question(CASES["grpc-route"], sets))
        (made,) = (each for each in yaml.safe_load_all(text) if each and each["kind"] == item["kind"])
        assert made["apiVersion"] == item["apiVersion"] and "{{" not in str(made)


def store_rights(user: str) -> str:
    """Of the store that the chart's README makes."""
    (values,) = (block for block in BLOCKS if "auth" in block)
    return str(values["auth"]["aclUsers"][user]["permissions"])


@pytest.mark.parametrize("user", ["gateway", "replica"])
def test_users_of_the_store_have_the_rights_that_the_code_is_tested_with(user: str) -> None:
    """README of the store room: its contract suite runs under them."""
    rights = re.findall(rf"ACL SETUSER {user} on >SECRET (.*)", STORE.read_text())
    assert [store_rights(user)] == rights


def test_options_of_the_planner_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    from services.cli.main import main

    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    known = capsys.readouterr().out
    texts = FRAME.read_text(), (CHART / "values.yaml").read_text()
    commands = [each for text in texts for each in re.findall(r"headrace plan ([^`]+)`", text)]
    assert len(commands) > 1
    for command in commands:
        assert command.startswith("--"), f"headrace plan {command}: it takes no argument"
        assert not [word for word in command.split() if word.startswith("--") and word not in known]
