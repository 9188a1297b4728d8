"""The committed gRPC code is what the committed protos generate."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_generated_code_is_current() -> None:
    done = subprocess.run([ROOT / "deploy" / "generate", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
