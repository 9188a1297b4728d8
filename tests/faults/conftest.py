"""Violations are shown in full."""

import pytest

pytest.register_assert_rewrite("tests.faults.checks")
