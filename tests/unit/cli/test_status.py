"""What `headrace status` says of the autoscaler."""

import pytest

from services.cli import status

MODEL = {
    "name": "m",
    "scaling": {"current": 1, "desired": 2, "reason": "turns", "held_because": "pending", "age": 1.2},
    "changes": [{"before": 1, "after": 2, "reason": "turns", "at": 1.8e9}],
}


def test_the_last_decision_and_the_changes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_scaling([MODEL, {"name": "fixed", "scaling": None, "changes": []}])
    out = capsys.readouterr().out
    assert "turns, held back: pending" in out and "1 s ago" in out
    assert "2027-01-15 08:00:00Z" in out and "1 -> 2" in out and "fixed" not in out


def test_nothing_is_shown_where_nothing_scales(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_scaling([{"name": "fixed", "scaling": None, "changes": []}])
    assert capsys.readouterr().out == ""
