"""A change of the chart shows as a change of what the shipped values files render."""

import difflib

import pytest

from tests.chart import golden
from tests.chart.cases import SHIPPED


@pytest.mark.parametrize("case", SHIPPED)
def test_it_renders_as_committed(case: str) -> None:
    old, new = golden.path(case).read_text().splitlines(), golden.text(case).splitlines()
    changes = list(difflib.unified_diff(old, new, "committed", "rendered", n=2, lineterm=""))
    told = "\n".join(changes[:60])
    assert not changes, f"{told}\n{len(changes)} lines; if they are meant: python -m tests.chart.golden"


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in golden.FOLDER.glob("*.yaml")} == set(SHIPPED)
