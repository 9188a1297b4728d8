"""One worker process: serves the public port until SIGTERM, then drains.

Started by the supervisor as `python -m services.gateway.worker FD`. It writes one byte a second to
the pipe FD, which tells the supervisor that its event loop turns; a broken pipe tells the worker
that the supervisor is gone.
"""

import asyncio
import gc
import os
import signal
import sys

import uvloop

from services.core.errors import Draining, StoreAway
from services.gateway.app import (
    build,
    check_store,
    client_of,
    explain_away,
    load_models,
    master_of,
    redis_stores,
)
from services.gateway.deps import Deps
from services.gateway.errors import load_settings, stop_with
from services.gateway.server import bind, build_server
from services.gateway.settings import GatewaySettings
from services.telemetry import logs, metrics

BEAT = 1.0  # seconds
CONNECT = 2.0  # seconds for the links to the known replicas, before callers come
LAST_WORDS = 1.0  # seconds for readers to take their terminal event


async def serve(settings: GatewaySettings, pipe: int) -> None:
    client = client_of(settings)
    await check_store(client)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    deps = build(settings, redis_stores(client, master_of(settings)), load_models(settings.models))
    server = build_server(deps)
    bind(server, settings)
    await deps.directory.refresh()
    await deps.directory.settle(CONNECT)
    for vital in (
        deps.tasks.start(deps.directory.watch(), "directory"),
        deps.tasks.start(gauge(deps), "gauges"),
    ):
        # A worker without one of them would look healthy and serve nobody; its successor is whole.
        vital.add_done_callback(lambda _: stopping.set())
    # What stands by now stays: without it each full collection would walk it again, between two tokens.
    gc.collect()
    gc.freeze()
    await server.start()
    deps.tasks.start(beat(pipe, stopping), "heartbeat")
    await stopping.wait()
    await drain(deps)
    await server.stop(LAST_WORDS)
    await deps.tasks.close()
    await client.aclose()


async def drain(deps: Deps) -> None:
    """No new turns; running ones get the grace to end, the rest are told so."""
    deps.admission.close()
    try:
        await asyncio.wait_for(deps.admission.idle(), deps.settings.drain_grace)
    except TimeoutError:
        ended = deps.turns.fail_all(Draining("the gateway shut down before the turn ended"))
        logs.log.warning("turns ended by drain", turns=ended)


async def beat(pipe: int, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + BEAT
        try:
            os.write(pipe, b".")
        except BrokenPipeError:
            stopping.set()
            return
        await asyncio.sleep(BEAT)
        metrics.LOOP_LAG.set(max(0.0, loop.time() - due))


async def gauge(deps: Deps) -> None:
    while True:
        metrics.STORE_UP.set(not deps.directory.store_away)
        for link in deps.directory.links():
            labels = (link.lease.model, link.lease.replica)
            metrics.ENGINE_RUNNING.labels(*labels).set(link.load.running)
            metrics.ENGINE_WAITING.labels(*labels).set(link.load.waiting)
            metrics.ENGINE_KV_USE.labels(*labels).set(link.load.kv_use)
        await asyncio.sleep(BEAT)


def main() -> None:
    logs.configure()
    settings = load_settings()
    try:
        uvloop.run(serve(settings, int(sys.argv[1])))
    except StoreAway as error:
        stop_with(explain_away(error))
    except (ValueError, OSError, RuntimeError) as error:
        stop_with(str(error))


if __name__ == "__main__":
    main()
