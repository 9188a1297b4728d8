from pathlib import Path

import pytest

from services.text.checkpoint import Checkpoint

SMOLLM2 = Path(__file__).parents[2] / "golden" / "smollm2"


@pytest.fixture(scope="session")
def smollm2() -> Checkpoint:
    return Checkpoint.load(SMOLLM2)
