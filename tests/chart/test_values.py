"""values.yaml, its schema and its README say the same; what the schema refuses, it refuses by name."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from deploy.chart import kinds, readme, schema, settings
from deploy.chart.comments import CHART, CommentError, Value, read
from services.gateway.settings import GatewaySettings
from tests.chart.cases import CASES, PRODUCTION, question
from tests.chart.helm import HelmRefused, Question, rendered

ROOT = read()
LEAVES = list(ROOT.leaves())
LINE = re.compile(r"\$?\.Values((?:\.[A-Za-z]\w*)+)")


def test_schema_and_readme_are_as_generated() -> None:
    assert (CHART / "values.schema.json").read_text() == schema.document()
    assert (CHART / "README.md").read_text() == readme.document()


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.dotted)
def test_every_value_is_documented_and_typed(leaf: Value) -> None:
    assert len(leaf.text) > 8, f"{leaf.dotted} has no `# --` sentence above it"
    made = schema.leaf(leaf)
    assert made.keys() & {"type", "enum", "const", "anyOf", "$ref"}, f"{leaf.dotted}: its type is not known"
    empty = leaf.default in ({}, []) and leaf.name not in kinds.BY_NAME
    assert not empty or leaf.schema, f"{leaf.dotted} is empty: say in `# @schema` what may be in it"


def test_every_value_is_in_the_readme() -> None:
    text = (CHART / "README.md").read_text()
    assert not [leaf.dotted for leaf in LEAVES if f"`{leaf.dotted}`" not in text]


def test_the_readme_names_no_value_that_is_not_there() -> None:
    """Of the part that is written by hand: `gateway.tls` and the like, by their sections."""
    sections = {child.name for child in ROOT.children if child.children}
    named = {each for each in re.findall(r"`([a-z]\w+(?:\.\w+)+)[:`]", readme.FRAME.read_text())}
    ours = {each for each in named if each.split(".")[0] in sections} - {"models.NAME.autoscaling"}
    assert len(ours) > 10
    assert not ours - DECLARED


def test_the_readme_names_no_command_that_is_not_there() -> None:
    commands = set(re.findall(r"(?m)(?:^|`|-- |KEY )headrace ([a-z]+)", readme.FRAME.read_text()))
    source = (CHART.parents[1] / "services" / "cli" / "main.py").read_text()
    assert commands - {"keys", "cluster"} <= set(re.findall(r"def ([a-z]+)\(", source))


# --- what templates use


def templates() -> Iterator[tuple[str, str]]:
    for path in sorted((CHART / "templates").rglob("*")):
        if path.is_file():
            yield str(path.relative_to(CHART)), path.read_text()


def paths(value: Value) -> Iterator[str]:
    yield value.dotted
    for child in value.children:
        yield from paths(child)


DECLARED = {*paths(ROOT)} - {""}
WHOLE = "\n".join(text for _, text in templates())


def used() -> set[str]:
    """Paths as templates write them. What stands in a variable or a `with` is seen by its last name only."""
    return {found.group(1)[1:] for found in LINE.finditer(WHOLE)}


# Names by which templates hold an entry of `models`, or a section of it.
OF_ENTRY = re.compile(r"[$.](model|checkpoint|scaling|gpu)((?:\.[a-z]\w*)+)")


def used_of_entries() -> set[str]:
    """Paths within an entry; `scaling` is the gateways' too, whose values are in another file."""
    engines = "\n".join(text for path, text in templates() if "engine" in path or "models" in path)
    section = {"model": "", "checkpoint": ".checkpoint", "scaling": ".autoscaling", "gpu": ".gpu"}
    found = OF_ENTRY.findall(engines)
    return {f"modelDefaults{section[name]}{path}" for name, path in found}


def test_every_path_that_templates_use_is_declared() -> None:
    free = tuple(f"{leaf.dotted}." for leaf in LEAVES)
    paths_used = used() | used_of_entries()
    assert len(used_of_entries()) > 40
    assert not sorted(path for path in paths_used - DECLARED if not path.startswith(free))


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.dotted)
def test_every_value_is_used(leaf: Value) -> None:
    if leaf.path[:2] == ("gateway", "settings"):
        assert leaf.name in GatewaySettings.model_fields
        return
    name, section = re.escape(leaf.name), re.escape(leaf.path[-2]) if len(leaf.path) > 2 else "$"
    by_name = rf"\.{name}\b|\"{name}\"|toYaml [^}}]*\.{section}\b"
    assert leaf.dotted in used() or re.search(by_name, WHOLE), f"no template uses {leaf.dotted}"


# Values that change what is rendered in some case; the proof that a use is more than a mention.
def test_few_mentions_are_without_effect() -> None:
    """Of leaves with a number or text, each is rendered somewhere: another value gives other manifests."""
    base = rendered(Question((PRODUCTION,)))
    still = [
        leaf.dotted for leaf in LEAVES if leaf.dotted.startswith("gateway.drain.") and not _moves(leaf, base)
    ]
    assert not still


def _moves(leaf: Value, base: str) -> bool:
    return rendered(Question((PRODUCTION,), (f"{leaf.dotted}={json.dumps(leaf.default + 1)}",))) != base


# --- what the schema takes and refuses

MODEL = 'models={"gpt-oss-120b": %s}'
REFUSED = [
    ("imges={}", "imges"),
    ("gateway.replica=2", "replica"),
    ("gateway.replicas=0", "gateway/replicas"),
    ('gateway.replicas="two"', "gateway/replicas"),
    ("gateway.processes=65", "gateway/processes"),
    ('gateway.bindAddress="127.0.0.1"', "gateway/bindAddress"),
    ("gateway.settings.max_turn=5", "max_turn"),
    ("gateway.settings.max_turns=0", "max_turns"),
    ('gateway.settings.listen="0.0.0.0:1"', "listen"),
    ('gateway.settings.link_token="x"', "link_token"),
    ("gateway.settings.redis_timeout=9", "redis_timeout"),
    ('gateway.settings.efforts={"m": "extreme"}', "efforts"),
    ('gateway.settings.conversation_date="today"', "conversation_date"),
    ('gateway.settings.retentions={"acme": 0}', "retentions"),
    ('gateway.service.type="ExternalName"', "gateway/service/type"),
    ("gateway.service.port=70000", "gateway/service/port"),
    ('gateway.service.loadBalancerSourceRanges=["anywhere"]', "loadBalancerSourceRanges"),
    ("gateway.tls.enabled=1", "gateway/tls/enabled"),
    ('gateway.tls.certManager.issuerRef.kind="Authority"', "issuerRef/kind"),
    ("gateway.autoscaling.cpuUtilization=150", "cpuUtilization"),
    ("gateway.drain.graceSeconds=-1", "graceSeconds"),
    ("gateway.drain.marginSeconds=1", "marginSeconds"),
    ('gateway.resources={"limit": {"cpu": 1}}', "limit"),
    ('gateway.resources.limits.memory="4 GB"', "memory"),
    ('gateway.tolerations=[{"effect": "Never"}]', "tolerations"),
    ('gateway.extraEnv=[{"value": "x"}]', "extraEnv"),
    ('images.gateway.digest="sha256:12"', "digest"),
    ('images.engine.pullPolicy="Sometimes"', "pullPolicy"),
    ('routes.grpc.parentRefs=[{"namespace": "x"}]', "parentRefs"),
    (MODEL % '{"engin": "vllm"}', "engin"),
    (MODEL % '{"engine": "sglang"}', "engine"),
    (MODEL % '{"checkpoint": {"source": "s3"}}', "checkpoint/source"),
    (MODEL % '{"replicas": -1}', "replicas"),
    (MODEL % '{"tensorParallelSize": 0}', "tensorParallelSize"),
    (MODEL % '{"gpuMemoryUtilization": 1}', "gpuMemoryUtilization"),
    (MODEL % '{"kvCacheDtype": "int3"}', "kvCacheDtype"),
    (MODEL % '{"autoscaling": {"kvTarget": 2}}', "kvTarget"),
    (MODEL % '{"upgrade": {"strategy": "Hope"}}', "strategy"),
    (MODEL % '{"nodeSelector": {"a": 1}}', "nodeSelector"),
    (MODEL % '{"shm": "lots"}', "shm"),
    ('store.mode="none"', "store/mode"),
    ("store.external.ports=[]", "store/external/ports"),
    ('store.bundled.persistence.size="big"', "persistence/size"),
    ('secrets.existingSecret.keys.rayToken="token"', "rayToken"),
    ('networkPolicy.apiServer.cidrs=["10.0.0.1"]', "apiServer/cidrs"),
    ("tracing.sampleRatio=2", "sampleRatio"),
    ("tests.patienceSeconds=0", "patienceSeconds"),
    ("extraObjects=5", "extraObjects"),
    ('gateway.priorityClassName="high\\nhostNetwork: true"', "gateway/priorityClassName"),
    (MODEL % '{"priorityClassName": "high\\nhostNetwork: true"}', "priorityClassName"),
    ('clusterDomain="cluster.local\\n- evil"', "clusterDomain"),
    ('store.bundled.maxmemory="1gb\\nrename-command x"', "store/bundled/maxmemory"),
    ('store.bundled.maxmemory="lots"', "store/bundled/maxmemory"),
    ("gateway.pdb.maxUnavailable=0", "gateway/pdb/maxUnavailable"),
    ('gateway.pdb.maxUnavailable="0%"', "gateway/pdb/maxUnavailable"),
    ('gateway.pdb.maxUnavailable="all"', "gateway/pdb/maxUnavailable"),
    ("gateway.replicas=3000000000", "gateway/replicas"),
    ("gateway.drain.graceSeconds=3000000000", "graceSeconds"),
    (MODEL % '{"replicas": 3000000000}', "replicas"),
]


@pytest.mark.parametrize(("value", "field"), REFUSED, ids=[f"{value[:60]}" for value, _ in REFUSED])
def test_a_bad_value_is_refused_by_name(value: str, field: str) -> None:
    with pytest.raises(HelmRefused, match="values don't meet the specifications of the schema") as refused:
        rendered(Question((PRODUCTION,), (value,)))
    assert field in str(refused.value)


TAKEN = [
    'gateway.settings.screen=["secret project"]',
    "gateway.settings.tenant_turns=100",
    'gateway.pdb.maxUnavailable="25%"',
    'gateway.priorityClassName="true"',
    'gateway.resources.requests={"cpu": 2, "memory": "2Gi", "ephemeral-storage": "1Gi"}',
    'global={"region": "eu"}',
    MODEL % '{"checkpoint": {"source": "made"}, "gpuMemoryUtilization": 0.95, "maxNumBatchedTokens": 0}',
    'extraObjects={"note": "apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: note}\\n"}',
]


@pytest.mark.parametrize("value", TAKEN)
def test_a_good_value_is_taken(value: str) -> None:
    assert rendered(Question((PRODUCTION,), (value,)))


@pytest.mark.parametrize("case", CASES)
def test_no_case_needs_a_value_that_the_schema_does_not_know(case: str) -> None:
    rendered(question(case))


def test_every_setting_of_a_gateway_is_the_charts_or_the_operators() -> None:
    own = settings.gateway()[0]["properties"].keys()
    assert own | settings.COMPUTED == GatewaySettings.model_fields.keys()
    assert not own & settings.COMPUTED


def test_templates_refuse_what_the_schema_keeps_for_the_chart() -> None:
    text = dict(templates())["templates/validate/_gateway.tpl"]
    assert not [name for name in settings.COMPUTED if f'"{name}"' not in text]


# --- comments


def test_comments_are_read_up_to_the_key(tmp_path: Path) -> None:
    (path := tmp_path / "values.yaml").write_text(
        '# a note\n\n# -- First line\n# and second.\n#   an: example\n# @schema {\n#   "minimum": 1}\n'
        "a:\n  # -- Inner.\n  b: 2\n"
        "# -- Free map.\nc:\n  d: 3\n"
    )
    a, c = read(path).children
    assert (a.text, a.schema, [leaf.dotted for leaf in a.leaves()]) == (
        "First line and second.",
        {"minimum": 1},
        ["a.b"],
    )
    assert (c.default, c.children) == ({"d": 3}, ())


def test_a_comment_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "values.yaml").write_text("# -- Text.\n# @schema {minimum: 1}\na: 1\n")
    with pytest.raises(CommentError, match=r"values.yaml: a: its @schema is not JSON"):
        read(path)


def test_a_null_without_a_type_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "values.yaml").write_text("# -- Text.\na: null\n")
    with pytest.raises(CommentError, match="a: null has no type"):
        schema.leaf(read(path).children[0])


@pytest.mark.parametrize(
    ("default", "kind"), product([True, 1, 0.5, "x"], ["boolean", "integer", "number", "string"])
)
def test_a_default_shows_its_type(default: object, kind: str) -> None:
    shown = {bool: "boolean", int: "integer", float: "number", str: "string"}[type(default)]
    assert (schema.of_default(default)["type"] == kind) is (shown == kind)
