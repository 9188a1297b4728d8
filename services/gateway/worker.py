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
from contextlib import suppress

import uvloop

from services.core.errors import Draining, Internal, StoreAway
from services.gateway import meter
from services.gateway.app import build, check_store, client_of, explain_away, load_models, redis_stores
from services.gateway.deps import Deps
from services.gateway.errors import load_settings, stop_with
from services.gateway.server import bind, build_server
from services.gateway.settings import GatewaySettings
from services.gateway.takeover import Takeover
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
    deps = build(settings, redis_stores(client, settings), load_models(settings.models))
    takeover = Takeover(deps)
    server = build_server(deps)
    bind(server, settings)
    await deps.directory.refresh()
    await deps.directory.settle(CONNECT)
    for vital in (
        deps.tasks.start(deps.directory.watch(), "directory"),
        deps.tasks.start(gauge(deps), "gauges"),
        deps.tasks.start(deps.recorder.run(), "recorder"),
        deps.tasks.start(takeover.watch(), "takeover"),
        deps.tasks.start(deps.scalings.watch(), "scaling"),
    ):
        # A worker without one of them would look healthy and serve nobody; its successor is whole.
        vital.add_done_callback(lambda _: stopping.set())
    # What stands by now stays: without it each full collection would walk it again, between two tokens.
    gc.collect()
    gc.freeze()
    await server.start()
    deps.tasks.start(beat(pipe, stopping), "heartbeat")
    await stopping.wait()
    await drain(deps, takeover)
    await server.stop(LAST_WORDS)
    await deps.tasks.close()
    await deps.scalings.leave()
    await asyncio.to_thread(deps.tracing.close)
    await client.aclose()


async def drain(deps: Deps, takeover: Takeover) -> None:
    """No new turns; running ones get the grace to end, the rest go on at another gateway."""
    deps.admission.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(deps.admission.idle(), deps.settings.drain_grace)
    await hand_over(deps, takeover)


async def hand_over(deps: Deps, takeover: Takeover) -> None:
    """Every turn that still runs is another gateway's; its readers are told to resume it there."""
    with suppress(StoreAway):
        await deps.recorder.flush()
        await takeover.leave()
    left = Draining("the gateway shut down; the turn goes on, resume it")
    for turn in (running := [turn for turn in deps.turns.all() if turn.outcome is None]):
        if turn.kept:
            turn.leave(turn.id, left)
        else:
            turn.fail(Draining("the gateway shut down before the turn ended"))
    await deps.recorder.flush()
    logs.log.info("drained", handed_over=len(running))


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
    metrics.describe_build()
    there: set[tuple[str, str]] = set()
    while True:
        there = meter.gauge(deps, there)
        await asyncio.sleep(BEAT)


def main() -> None:
    settings = load_settings()
    logs.configure(settings.log_level)
    try:
        uvloop.run(serve(settings, int(sys.argv[1])))
    except StoreAway as error:
        stop_with(explain_away(error))
    except Internal as error:
        stop_with(f"{error}: is HEADRACE_REDIS_URL right?")
    except (ValueError, OSError, RuntimeError) as error:
        stop_with(str(error))


if __name__ == "__main__":
    main()
