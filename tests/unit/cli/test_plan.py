"""`headrace plan`: the table, JSON, Helm values, this machine, and mistakes in one line."""

import json
from pathlib import Path

import pytest
import yaml

from cluster.models import report
from cluster.models.catalogue import BY_NAME, find
from cluster.models.gpus import BY_NAME as GPUS
from cluster.models.gpus import Gpu, kind_of
from cluster.models.planner import Plan, Question, plan
from services.cli import exits
from services.cli.main import main
from services.cli.plan import tokens

ASKED = (
    "plan",
    "--model",
    "gpt-oss-120b",
    "--gpu",
    "h100",
    "--gpus",
    "16",
    "--context",
    "32k",
    "--concurrency",
    "200",
)
SMI = """#!/bin/sh
printf 'NVIDIA H100 80GB HBM3, 81559\\nNVIDIA H100 80GB HBM3, 81559\\n'
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another program under the name of nvidia-smi, first on the path."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


def test_the_table_says_layout_memory_sequences_speed_and_what_was_not_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*ASKED) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "gpt-oss-120b on 16 x h100: TP2 x PP1 x 8 replicas",
        "34.4 weights, 33.5 KV cache, 3.8 activations and graphs",
        "of 71.6 usable (90% of 79.6)",
        "472 of 32,768 tokens; 200 asked for",
        "5,168 646 concurrency 4 vLLM 0.10.2 gpustack performance lab",
        "61,192 7,649 burst of 1,000 ShareGPT prompts",
        "TP1 x PP1 TP2 x PP1 is advised: measured 31.6 % more tokens/s per GPU",
    ):
        assert words in said


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ASKED, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["tensor_parallel"], said["pipeline_parallel"], said["replicas"]) == (2, 1, 8)
    assert [each["total"] for each in said["tokens_per_second"]] == [5168, 61192]
    memory = said["memory_gib"]
    assert memory["weights"] + memory["kv"] + memory["reserve"] == pytest.approx(memory["usable"])
    assert said["sequences"] == {"per_replica": 59, "total": 472}


def test_helm_values_are_yaml_that_a_chart_can_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*ASKED, "--helm") == 0
    models = yaml.safe_load(capsys.readouterr().out)["models"]
    assert list(models) == ["gpt-oss-120b"]
    engine = models["gpt-oss-120b"]
    products = ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"]
    assert engine["gpu"] == {"kind": "h100", "products": products, "perReplica": 2, "perNode": 2}
    assert engine["checkpoint"] == {
        "source": "hub",
        "repository": "openai/gpt-oss-120b",
        "revision": find("gpt-oss-120b").revision,
        "size": "69G",
    }
    assert (engine["replicas"], engine["tensorParallelSize"], engine["maxModelLen"]) == (8, 2, 32768)
    assert (engine["maxNumSeqs"], engine["capacity"]) == (256, 512)
    assert engine["shm"] == "6Gi"
    assert engine["resources"]["worker"] == {
        "requests": {"cpu": "6", "memory": "30Gi"},
        "limits": {"memory": "30Gi"},
    }
    assert all(key.isalnum() for key in engine)


def test_the_values_of_every_model_are_yaml() -> None:
    for model in BY_NAME.values():
        made = plan(Question(model, GPUS["h200"], 8))
        assert isinstance(made, Plan)
        values = report.values(made)
        assert yaml.safe_load(report.yaml(values)) == values


@pytest.mark.parametrize("output", [(), ("--json",), ("--helm",)])
def test_what_does_not_fit_exits_1_and_says_what_would(
    output: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--model", "r1", "--gpu", "h100", "--gpus", "8", *output) == exits.FAILED
    told = capsys.readouterr()
    assert told.err == (
        "headrace: deepseek-r1 does not fit on 8 x h100 (TP8 x PP1: weights of 78.7 GiB per GPU, 71.6 GiB usable). "
        "16 x h100 hold it as TP8 x PP2.\n"
    )
    if output == ("--json",):
        assert json.loads(told.out)["fits"] is False
    if output == ("--helm",):
        assert told.out == ""


def test_without_a_figure_none_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--model", "r1", "--gpu", "h100", "--gpus", "16") == 0
    assert "no published figure for this layout" in capsys.readouterr().out


def test_without_a_model_all_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--gpu", "h100", "--gpus", "8", "--context", "128k") == 0
    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in BY_NAME)


def test_this_machines_gpus_are_planned_for(smi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--here", "--model", "120b", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["gpu"], said["gpus"], said["tensor_parallel"], said["replicas"]) == ("h100", 2, 2, 1)


def test_a_driver_that_fails_is_a_machine_without_gpus(smi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert run("plan", "--here", "--json") == 0
    said = {each["model"]: each for each in json.loads(capsys.readouterr().out)}
    assert "mxfp4" in said["gpt-oss-120b"]["why_not"]


def test_a_machine_without_gpus_says_what_it_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("plan", "--here") == 0
    said = capsys.readouterr().out
    assert said.startswith("No NVIDIA GPU here: ")
    assert "smollm2-135m" in said and "gpt-oss-120b" in said


def test_helm_values_of_a_machine_without_gpus_are_for_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("plan", "--here", "--model", "smollm2", "--helm") == 0
    entry = yaml.safe_load(capsys.readouterr().out)["models"]["smollm2-135m"]
    assert "gpu" not in entry and entry["maxModelLen"] == 8192
    assert run("plan", "--here", "--model", "120b", "--helm") == exits.FAILED
    told = capsys.readouterr()
    assert told.out == "" and "gpt-oss-120b does not fit: its mxfp4 weights" in told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "gpt-5", "--gpu", "h100", "--gpus", "8"), "gpt-oss-120b"),
        (("--model", "120b", "--gpu", "h1000", "--gpus", "8"), "b200, h200, h100"),
        (("--model", "120b"), "--gpus N, or --here"),
        (("--model", "120b", "--gpu", "h100"), "--gpus N, or --here"),
        (("--model", "120b", "--gpu", "h100", "--here"), "Leave --gpu"),
        (("--gpu", "h100", "--gpus", "8", "--helm"), "Give --model"),
        (("--model", "120b", "--gpu", "h100", "--gpus", "8", "--context", "lots"), "32k"),
        (("--model", "120b", "--gpu", "h100", "--gpus", "8", "--context", "0"), "1 to 131,072"),
        (("--model", "120b", "--gpu", "h100", "--gpus", "8", "--context", "200k"), "1 to 131,072"),
        (("--model", "120b", "--gpu", "h100", "--gpus", "8", "--json", "--helm"), "--json or --helm"),
    ],
)
def test_a_mistake_costs_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *arguments) == exits.USAGE
    told = capsys.readouterr()
    assert told.out == "" and words in told.err and len(told.err.splitlines()) == 1


@pytest.mark.parametrize(("text", "count"), [("32k", 32768), ("128K", 131072), ("4096", 4096)])
def test_tokens_are_written_short_or_in_full(text: str, count: int) -> None:
    assert tokens(text) == count


def test_a_node_of_the_chart_has_the_gpus_of_its_shards_only() -> None:
    made = plan(Question(find("r1"), GPUS["h100"], 16))
    assert isinstance(made, Plan)
    entry = report.values(made)["models"]["deepseek-r1"]
    assert entry["gpu"] | {"products": []} == {"kind": "h100", "products": [], "perReplica": 16, "perNode": 8}
    assert (entry["nodes"], entry["shm"]) == (2, "18Gi")


@pytest.mark.parametrize("kind", GPUS.values(), ids=GPUS)
def test_the_labels_of_a_gpu_kind_are_names_by_which_it_is_known(kind: Gpu) -> None:
    """Feature discovery writes a hyphen where nvidia-smi has a space."""
    assert kind.products
    assert all(kind_of(product.replace("-", " "), 0.0) == kind for product in kind.products)
