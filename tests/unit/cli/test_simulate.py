"""`headrace simulate-scaling`: the table, JSON, CSV, the plot, and mistakes in one line that names field and limit."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import exits
from services.cli.main import main

SHORT = ("simulate-scaling", "--gpus", "16", "--hours", "0.5", "--seed", "3")
NO_PLOTS = """
import sys
sys.modules["matplotlib"] = None
from services.cli.main import main
main(sys.argv[1:])
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_the_table_has_a_row_for_each_policy_and_says_whose_speed_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*SHORT) == 0
    said = capsys.readouterr().out
    assert "gpt-oss-120b on 16 x h100: up to 8 replicas of 2 GPU(s), 0.5 h, seed 3" in said
    assert "7,649 tokens/s at burst of 1,000 ShareGPT prompts (gpustack performance lab" in said
    rows = [line.split()[0] for line in said.splitlines()[3:]]
    assert rows == ["POLICY", "headrace", "static", "serve-requests", "cpu", "kv-only"]


def test_json_and_csv_have_the_same_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    assert run(*SHORT, "--policies", "headrace,static", "--json", "--csv", str(file)) == 0
    document = json.loads(capsys.readouterr().out)
    with file.open() as text:
        rows = list(csv.DictReader(text))
    assert [row["policy"] for row in rows] == ["headrace", "static"]
    for row, told in zip(rows, document["rows"], strict=True):
        assert float(row["gpu_hours"]) == told["gpu_hours"]
    assert document["settings"]["max_replicas"] == 8
    assert document["world"]["seed"] == 3


def test_settings_of_the_law_and_of_the_world_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--set", "target_turns=100", "--set", "cold_start_seconds=60", "--set", "max_replicas=4")
    assert run(*SHORT, *given, "--policies", "headrace", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["target_turns"] == 100
    assert document["world"]["cold_start_seconds"] == 60
    assert document["rows"][0]["peak_replicas"] <= 4


def test_a_sweep_has_a_row_for_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SHORT, "--sweep", "target_turns=32,128", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["target_turns"] for row in rows] == ["32", "128"]
    assert rows[0]["gpu_hours"] > rows[1]["gpu_hours"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_plot_is_a_picture_and_the_same_each_time(
    ending: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
    for file in files:
        assert run(*SHORT, "--policies", "headrace,static", "--plot", str(file)) == 0
    start = files[0].read_bytes()[:5]
    assert start in (b"\x89PNG\r", b"<?xml")
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path) -> None:
    file = tmp_path / "day.svg"
    told = subprocess.run(
        [sys.executable, "-c", NO_PLOTS, *SHORT, "--policies", "static", "--plot", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == exits.FAILED
    assert told.stderr.strip() == (
        "headrace: matplotlib is not installed. Run `pip install headrace[plots]`."
    )
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu", "h1000"), "no GPU kind 'h1000'. Choose one of b200, h200, h100"),
        (("--model", "gpt-6"), "no model 'gpt-6' is in the catalogue"),
        (("--gpu", "a100-80"), "prefill_tokens_per_second of gpt-oss-120b on a100-80"),
        (("--gpus", "1", "--gpu", "l4"), "gpt-oss-120b does not fit on 1 x l4"),
        (("--set", "target_turns"), "--set 'target_turns' is no setting"),
        (("--set", "colour=red"), "Write NAME=VALUE, NAME of min_replicas,"),
        (("--set", "target_turns=0"), "target_turns input should be greater than 0"),
        (("--set", "kv_target=1.5"), "kv_target input should be less than or equal to 1"),
        (("--set", "down_at=0.9"), "headrace: down_at must be below up_at, which is 0.85"),
        (("--set", "peak=3"), "peak input should be less than or equal to 2"),
        (("--set", "max_replicas=9"), "max_replicas 9 is more than the 8 that 16 GPUs hold"),
        (("--set", "prefill_tokens_per_second=fast"), "prefill_tokens_per_second 'fast' is out of range"),
        (("--policies", "best"), "--policies has 'best'. Choose of headrace, static"),
        (("--sweep", "colour"), "--sweep knows no 'colour'. Choose one of target_turns"),
        (("--sweep", "target_turns=a"), "Write target_turns=A,B,C"),
        (("--sweep", "target_turns=-1"), "target_turns input should be greater than 0"),
        (("--plot", "day.gif"), "--plot 'day.gif' is no picture. End it in .png or .svg"),
        (("--plot", "day.png", "--sweep", "growth"), "a sweep has no plot"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_costs_one_line_that_names_field_and_limit(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SHORT, *arguments) == exits.USAGE
    told = capsys.readouterr().err.strip()
    assert words in told
    assert "\n" not in told


def test_a_place_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for option in ("--csv", "--plot"):
        file = tmp_path / "absent" / "day.svg"
        assert run(*SHORT, "--policies", "static", option, str(file)) == exits.FAILED
        assert f"cannot write {file}: No such file or directory" in capsys.readouterr().err
