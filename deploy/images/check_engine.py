"""Run while the engine image is built: `before` notes what vLLM's image has, `after` refuses a change of it.

Before: Python is one that our locks are for, and vLLM is the version that they name. After: torch, CUDA and vLLM are as
they were, and Ray's version is the lock's. Only the standard library: our packages are not there yet.
"""

import importlib.metadata as metadata
import json
import sys
from pathlib import Path

NOTE = Path("/build/before.json")
PYTHONS = ((3, 11), (3, 12), (3, 13))
VLLM = "0.32.0"
RAY = "2.60.0"
KEPT = ("torch", "triton", "vllm", "nvidia-", "flashinfer", "cuda-", "nccl")


def kept() -> dict[str, str]:
    names = ((dist.metadata["Name"].lower(), dist.version) for dist in metadata.distributions())
    return {name: version for name, version in names if name.startswith(KEPT)}


def before() -> str:
    if sys.version_info[:2] not in PYTHONS:
        return f"the image has Python {sys.version.split()[0]}: the locks are for 3.11 to 3.13"
    found = kept().get("vllm", "no vLLM").split("+")[0]
    if found != VLLM:
        return f"the image has vLLM {found}: the locks are for {VLLM}"
    NOTE.write_text(json.dumps(kept()))
    return ""


def after() -> str:
    was, now = json.loads(NOTE.read_text()), kept()
    changed = sorted(name for name in was.keys() | now if was.get(name) != now.get(name))
    if changed:
        return "the installation changed " + ", ".join(
            f"{name} from {was.get(name)} to {now.get(name)}" for name in changed
        )
    ray = metadata.version("ray")
    return "" if ray == RAY else f"Ray is {ray}: KubeRay is told {RAY}"


def main() -> None:
    steps = {"before": before, "after": after}
    if said := steps[sys.argv[1]]():
        sys.exit(said)


if __name__ == "__main__":
    main()
