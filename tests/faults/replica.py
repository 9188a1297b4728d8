"""A replica as a process of its own, without Ray: it can be killed and frozen. `python -m tests.faults.replica NAME`
with the settings as JSON in SETTINGS.

It says `ready ADDRESS` once, and `order TURN PROMPT_TOKENS MONOTONIC` for every order. It obeys `hang` and `resume`
of its engine, process and link living on, and `ledger`. SIGTERM drains it.
"""

import asyncio
import json
import os
import signal
import sys
import time

from cluster.engine.health import Unhealthy
from cluster.engine.port import EngineRequest
from cluster.engine.sim import SimEngine
from cluster.serving.lease import Lease
from cluster.serving.replica import Replica
from cluster.serving.settings import ReplicaSettings
from tests.faults.talk import obey, say


class Accountable(SimEngine):
    """Says what it was asked for: the engine's own account of executions."""

    async def submit(self, request: EngineRequest) -> None:
        await super().submit(request)
        if request.turn:
            say("order", request.turn, len(request.prompt), time.monotonic())


class Announced(Replica):
    """Tells gateways another address than its own: that of a link that can fail."""

    def _new_lease(self) -> Lease:
        self.address = os.environ.get("ANNOUNCE") or self.address
        return super()._new_lease()


async def judge(replica: Replica, stopping: asyncio.Event) -> None:
    """Asks it as Ray Serve does, and ends it if it does not work."""
    while True:
        try:
            replica.check()
        except Unhealthy as unhealthy:
            say("unhealthy", unhealthy)
            stopping.set()
            return
        await asyncio.sleep(0.1)


async def serve(name: str, settings: ReplicaSettings) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    engine = Accountable(settings.sim)
    replica = Announced(settings, name, engine)
    await replica._open("127.0.0.1")
    obey(
        {
            "hang": lambda: setattr(engine, "hang", True),
            "resume": engine.resume,
            "ledger": lambda: say("ledger", json.dumps(replica.stats())),
        }
    )
    say("ready", replica.address)
    judging = asyncio.create_task(judge(replica, stopping))
    await stopping.wait()
    judging.cancel()
    await replica.drain()
    say("drained")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], ReplicaSettings.model_validate_json(os.environ["SETTINGS"])))
