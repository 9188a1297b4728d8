"""`python -m deploy.images.sbom [FOLDER]`: what is in each image, as CycloneDX JSON out of the locks.

The same locks give the same bytes. Packages for other systems, which the locks hold too, are left out.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy/requirements"
IMAGES = {"gateway": ("gateway",), "engine": ("engine",), "engine-cpu": ("torch-cpu", "cpu")}
PYTHON = {"gateway": "3.11", "engine": "3.12", "engine-cpu": "3.11"}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/sbom"
    folder.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        path = folder / f"{image}.cdx.json"
        path.write_text(document(image))
        sys.stdout.write(f"{path}  {len(json.loads(path.read_text())['components'])} packages\n")


def document(image: str) -> str:
    """Raises CalledProcessError where cyclonedx-py refuses the lock."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.txt"
        lock.write_text("".join(fitting(image)))
        argv = [sys.executable, "-m", "cyclonedx_py", "requirements", str(lock), "--output-reproducible"]
        argv += ["--pyproject", str(ROOT / "pyproject.toml"), "--of", "JSON"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=folder)  # noqa: S603
    return done.stdout


def fitting(image: str) -> Iterator[str]:
    """The requirements, hashes included, whose markers are true on Linux, x86_64."""
    system = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_version": PYTHON[image],
        "python_full_version": f"{PYTHON[image]}.9",
    }
    for lock in IMAGES[image]:
        for block in blocks((LOCKS / f"{lock}.txt").read_text()):
            marker = Requirement(block.partition("--hash")[0].replace("\\", " ").strip()).marker
            if marker is None or marker.evaluate(system):
                yield block


def blocks(text: str) -> Iterator[str]:
    """A requirement with its hashes, each as a whole."""
    whole = ""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            whole += line + "\n"
            if not line.endswith("\\"):
                yield whole
                whole = ""


if __name__ == "__main__":
    main()
