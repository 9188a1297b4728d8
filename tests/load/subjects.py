"""What the bench compares: each starts, names its target and the processes to meter, and stops."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.engine.launch import VllmSettings, environment
from tests.load.readme import ROOT
from tests.support.valkey import free_port

START_SECONDS = 300
MODEL = "micro"
CONTEXT = 2048
ENGINE_PROCESSES = ("VLLM::EngineCore", "VLLM::Worker")


@dataclass(frozen=True, slots=True)
class Subject:
    """`meters`: name to the pids whose CPU time counts as that part's. `drive` runs streams x tokens."""

    name: str
    meters: Mapping[str, Callable[[], list[int]]]
    drive: Callable[[int, int], dict[str, Any]]

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU used so far by each part."""
        return {name: sum(_cpu(pid) for pid in pids()) for name, pids in self.meters.items()}


def _cpu(pid: int) -> float:
    """Nanosecond clock of the whole process, ended threads included; /proc counts in steps of 10 ms."""
    process_clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) builds it
    return time.clock_gettime(process_clock)


def settings(checkpoint: Path) -> VllmSettings:
    return VllmSettings(checkpoint=str(checkpoint), max_model_len=CONTEXT)


def generator(protocol: str, target: str, key: str = "") -> Callable[[int, int], dict[str, Any]]:
    def drive(streams: int, tokens: int) -> dict[str, Any]:
        spec = {"protocol": protocol, "target": target, "key": key, "model": MODEL}
        spec |= {"streams": streams, "tokens": tokens}  # type: ignore[dict-item]
        argv = [sys.executable, "-m", "tests.load.generator"]
        done = subprocess.run(
            argv, input=json.dumps(spec), text=True, capture_output=True, check=True, cwd=ROOT
        )
        return dict(json.loads(done.stdout))

    return drive


@contextmanager
def in_process(checkpoint: Path) -> Iterator[Subject]:
    """AsyncLLM.generate in a process of its own, token ids in and out, no detokenizing."""
    argv = [sys.executable, "-m", "tests.load.inprocess", str(checkpoint)]
    env = os.environ | environment(settings(checkpoint))
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        to_process, from_process = process.stdin, process.stdout
        answer(from_process)

        def drive(streams: int, tokens: int) -> dict[str, Any]:
            to_process.write(f"{streams} {tokens}\n")
            to_process.flush()
            return answer(from_process)

        try:
            yield Subject("AsyncLLM in process", {"engine side": lambda: [process.pid]}, drive)
        finally:
            to_process.close()
            process.wait(60)


def answer(lines: Iterable[str]) -> dict[str, Any]:
    """The next JSON line; vLLM logs between them."""
    for line in lines:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise RuntimeError("AsyncLLM ended early")


@contextmanager
def openai_server(checkpoint: Path, *, executor: str = "") -> Iterator[Subject]:
    """vLLM's own HTTP server with the same engine settings; `executor` replaces the one it chooses."""
    port = free_port()
    chosen = settings(checkpoint)
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", chosen.checkpoint]
    argv += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    argv += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(chosen.max_num_seqs), "--enforce-eager"]
    argv += ["--disable-log-stats", "--uvicorn-log-level", "warning"]
    argv += ["--distributed-executor-backend", executor] if executor else []
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv, env=os.environ | environment(chosen), stdout=log, stderr=log, cwd=ROOT
        )
        target = f"http://127.0.0.1:{port}"
        try:
            _await_http(f"{target}/health", process)
            meters = {"engine side": lambda: front_end(process.pid)}
            name = "vLLM server, our executor" if executor else "vLLM server"
            yield Subject(name, meters, generator("http", target))
        finally:
            stop(process)


@contextmanager
def headrace(checkpoint: Path) -> Iterator[Subject]:
    """The whole stack as `headrace up` starts it, in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as home:
        env = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")} | {"HEADRACE_HOME": home}
        command = [sys.executable, "-m", "services.cli"]
        try:
            _run([*command, "up", "--model", str(checkpoint), "--port", "0"], env)
            stack = json.loads((Path(home) / "stack.json").read_text())
            pids = {process["name"]: process["pid"] for process in stack["processes"]}
            key = (Path(home) / "api-key").read_text().strip()
            meters = {
                "engine side": lambda: replicas(pids["ray"]),
                "gateway": lambda: [child.pid for child in psutil.Process(pids["gateway"]).children()],
            }
            yield Subject("Headrace", meters, generator("grpc", stack["endpoint"], key))
        finally:
            _run([*command, "down"], env)


def front_end(pid: int) -> list[int]:
    """The process and its descendants, without the engine's own."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return [one.pid for one in family if not _title(one).startswith(ENGINE_PROCESSES)]


def replicas(ray_pid: int) -> list[int]:
    family = psutil.Process(ray_pid).children(recursive=True)
    return [one.pid for one in family if _title(one).startswith("ray::ServeReplica")]


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def _await_http(url: str, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"vLLM's server did not start (exit {process.poll()})") from error
            time.sleep(0.5)


def stop(process: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, alive = psutil.wait_procs([psutil.Process(process.pid), *family], timeout=20)
    for survivor in alive:
        survivor.kill()
    process.wait(20)


def _run(argv: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(argv, env=env, text=True, capture_output=True, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv[2:])} failed:\n{done.stdout}{done.stderr}")
