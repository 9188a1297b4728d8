"""Runs the workers, and answers for all of them: health, metrics, restart and the order of shutdown."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import mark_process_dead

from services.gateway.errors import EXIT_CONFIG, load_settings, stop_with
from services.gateway.settings import GatewaySettings
from services.telemetry import logs
from services.telemetry.figures import Figures

STALE = 5.0  # seconds without a heartbeat, then a worker does not count as serving
RESTART_DELAY = 1.0
LIVENESS = "liveness"  # SERVING as long as this process answers: neither Ray nor the store can end it
READINESS = "readiness"
API_SERVICES = ("", READINESS, "headrace.v1.Inference", "headrace.v1.Models", "headrace.v1.Sessions")


@dataclass(slots=True)
class Worker:
    process: asyncio.subprocess.Process
    last_beat: float = field(default=float("-inf"))


class Supervisor:
    """Workers share the public port; SERVING means that at least one of them beat within STALE seconds."""

    def __init__(self, settings: GatewaySettings, metrics_dir: str) -> None:
        self._settings = settings
        self._environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": metrics_dir}
        self._metrics_dir = metrics_dir
        self._workers: dict[int, Worker] = {}
        self._stopping = asyncio.Event()
        self._health = health.aio.HealthServicer()
        self._was_serving = False
        self._exit_code = 0

    async def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        server = await self._serve_health()
        keepers = [asyncio.create_task(self._keep(slot)) for slot in range(self._settings.processes)]
        watcher = asyncio.create_task(self._watch())
        await self._stopping.wait()
        watcher.cancel()
        await self._report(serving=False)
        await asyncio.sleep(self._settings.drain_delay)
        for worker in self._workers.values():
            worker.process.terminate()
        await asyncio.gather(*keepers)
        await server.stop(0)
        return self._exit_code

    async def _serve_health(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_insecure_port(self._settings.health_listen)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._report(serving=False)
        await server.start()
        return server

    async def _report(self, *, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if serving else states.NOT_SERVING
        for service in API_SERVICES:
            await self._health.set(service, status)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            newest = max((w.last_beat for w in self._workers.values()), default=float("-inf"))
            await self._report(serving=loop.time() - newest < STALE)
            await asyncio.sleep(0.1)

    async def _keep(self, slot: int) -> None:
        """Runs a worker, again and again until shutdown. A gateway that never served ends with its first worker."""
        while not self._stopping.is_set():
            code = await self._run_worker(slot)
            if self._stopping.is_set():
                return
            logs.log.error("worker ended", slot=slot, code=code)
            if not self._was_serving:
                self._exit_code = EXIT_CONFIG if code == EXIT_CONFIG else 1
                self._stopping.set()
                return
            await asyncio.sleep(RESTART_DELAY)

    async def _run_worker(self, slot: int) -> int:
        read_end, write_end = os.pipe()
        command = (sys.executable, "-m", "services.gateway.worker", str(write_end))
        process = await asyncio.create_subprocess_exec(*command, env=self._environment, pass_fds=(write_end,))
        os.close(write_end)
        self._workers[slot] = worker = Worker(process)
        loop = asyncio.get_running_loop()
        loop.add_reader(read_end, self._beat, read_end, worker)
        code = await process.wait()
        loop.remove_reader(read_end)
        os.close(read_end)
        del self._workers[slot]
        mark_process_dead(process.pid, self._metrics_dir)  # type: ignore[no-untyped-call]
        return code

    def _beat(self, read_end: int, worker: Worker) -> None:
        if os.read(read_end, 4096):
            self._was_serving = True
            worker.last_beat = asyncio.get_running_loop().time()
        else:
            asyncio.get_running_loop().remove_reader(read_end)


def serve_metrics(settings: GatewaySettings, metrics_dir: str) -> None:
    registry = CollectorRegistry()
    registry.register(Figures(metrics_dir))
    host, _, port = settings.metrics_listen.rpartition(":")
    start_http_server(int(port), host.strip("[]"), registry)


def main() -> None:
    settings = load_settings()
    logs.configure(settings.log_level)
    metrics_dir = tempfile.mkdtemp(prefix="headrace-metrics-")
    try:
        serve_metrics(settings, metrics_dir)
        code = uvloop.run(Supervisor(settings, metrics_dir).run())
    except (OSError, RuntimeError) as error:
        stop_with(f"cannot listen: {error}")
    finally:
        shutil.rmtree(metrics_dir, ignore_errors=True)
    raise SystemExit(code)
