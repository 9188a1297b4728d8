"""What must hold of every rendering, whatever the values."""

import pytest

from tests.chart.cases import CASES, question
from tests.chart.checks.all import CHECKS
from tests.chart.manifests import manifests


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_it_holds(case: str, check: str) -> None:
    assert not list(CHECKS[check](manifests(question(case))))


@pytest.mark.parametrize("check", CHECKS)
def test_it_holds_under_long_names(check: str) -> None:
    asked = question("everything", release="a-release-whose-name-is-as-long-as-helm-takes-it-here")
    assert not list(CHECKS[check](manifests(asked)))


@pytest.mark.parametrize("check", CHECKS)
def test_it_holds_before_the_sleep_action(check: str) -> None:
    assert not list(CHECKS[check](manifests(question("production", "1.29"))))
