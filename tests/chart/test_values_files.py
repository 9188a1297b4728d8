"""The chart's values files are those that the catalogue gives, and each of their layouts fits."""

import shlex
from pathlib import Path

import pytest
import yaml

from deploy.chart import values
from deploy.chart.comments import CHART
from deploy.chart.values import SHAPES, Shape
from services.cli.main import main


def test_the_values_files_are_as_generated_and_there_are_no_others() -> None:
    assert values.write(check=True) == []
    assert {path for path, _ in values.documents()} == set(CHART.glob("values-*.yaml"))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_command_that_a_file_names_prints_its_models(
    shape: Shape, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command exits 1 where the layout does not fit."""
    text = values.path(shape.name).read_text()
    command = shlex.split(text.split("`headrace ")[1].split("`")[0])
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["models"] == yaml.safe_load(text)["models"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_no_gpu_of_a_file_is_left_over(shape: Shape) -> None:
    (entry,) = yaml.safe_load(values.path(shape.name).read_text())["models"].values()
    assert entry["replicas"] * entry["gpu"]["perReplica"] == shape.gpus
    assert entry["gpu"]["perNode"] * entry["nodes"] == entry["gpu"]["perReplica"]


def test_a_shape_that_does_not_hold_its_model_is_no_file() -> None:
    with pytest.raises(values.DoesNotFit, match="8 x h100 do not hold deepseek-r1"):
        values.planned(Shape("r1-8xh100", "deepseek-r1", "h100", 8))


def test_a_file_that_was_changed_by_hand_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "CHART", tmp_path)
    assert "values-laptop.yaml" in values.write(check=True)
    values.write(check=False)
    assert values.write(check=True) == []
    values.path("laptop").write_text("models: {}\n")
    assert values.write(check=True) == ["values-laptop.yaml"]
