"""A gateway of the real code, without sockets: a call is a task in its process."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from services.backend.memory import MemoryScaling
from services.core.clock import Ids
from services.core.errors import HeadraceError
from services.core.request import Tenant
from services.core.tasks import Tasks
from services.gateway.admission import Admission
from services.gateway.app import scalings
from services.gateway.deps import Deps, ServedModel
from services.gateway.inference import Inference
from services.gateway.settings import GatewaySettings
from services.gateway.takeover import Takeover
from services.gateway.turns import Turns
from services.gateway.waiting import WaitingRoom
from services.gateway.worker import drain
from services.journal.mirror import Mirrors
from services.journal.recorder import Recorder
from services.safety.screen import Screen
from services.telemetry.metrics import TurnMeter
from tests.sim.loop import WORLD, LoopClock, Owner, VirtualLoop
from tests.sim.model import NAME, TinyFamily
from tests.sim.replica import Replica, SimDirectory
from tests.sim.store import Server, Way

LEASE = 1.5  # seconds
GRACE = 1.0  # seconds of a drain
LAST_WORDS = 1.0  # seconds
WIRE = 0.001  # seconds from client to gateway
SETTINGS = GatewaySettings(
    key_pepper="pepper",
    link_token="token",
    models={},
    gateway_lease=LEASE,
    drain_grace=GRACE,
    linger=2,
    recovery=4,
    max_turn_seconds=60,
)
MODELS = {NAME: ServedModel(NAME, TinyFamily(), TurnMeter(NAME))}


class End(NamedTuple):
    """How a call ended: "" for a reply, "TRANSPORT" for a broken connection, else an outcome."""

    status: str
    reply: Any = None
    details: str = ""


class Call:
    """What the gateway sees as its context, and the client's end of the same call."""

    def __init__(self, gateway: "SimGateway", caller: str, deadline: float, *, slow: float) -> None:
        self._gateway, self._loop = gateway, gateway.loop
        self._caller = caller
        self._deadline = deadline
        self._slow = slow
        self._inbox: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.over = False

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return [("authorization", self._caller)]

    def time_remaining(self) -> float:
        return max(0.0, self._deadline - self._loop.time())

    async def write(self, message: Any) -> None:
        self._loop.call_later(WIRE, self.put, message, context=WORLD)
        if self._slow:
            await asyncio.sleep(self._slow)

    def put(self, what: Any) -> None:
        if self.over:
            return
        self.over = isinstance(what, End)
        self._inbox.append(what)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def ends(self, end: End) -> None:
        self._loop.call_later(WIRE, self.put, end, context=WORLD)

    async def take(self, until: float) -> Any:
        """The next message or the End; None at the time `until`."""
        if not self._inbox:
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_at(until, _wake, waiter)
            await waiter
            timer.cancel()
        return self._inbox.popleft() if self._inbox else None

    def cancel(self) -> None:
        self.over = True
        if self.task is not None:
            self._loop.call_later(WIRE, self.task.cancel, context=self._gateway.owner.context)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class SimKeyring:
    async def identify(self, authorization: str | None) -> Tenant:
        return Tenant(str(authorization), "key")


class SimGateway:
    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        server: Server,
        replicas: Sequence[Replica],
        ids: Ids,
        crashes: list[str],
    ) -> None:
        self.name, self.loop = name, loop
        self.owner = Owner(name)
        self.accepting = True
        self.calls: list[Call] = []
        self._crashes, self._replicas = crashes, replicas
        self.owner.context.run(self._build, server, ids)

    def _build(self, server: Server, ids: Ids) -> None:
        clock = LoopClock(self.loop)
        journals: Any = Way(server, self.owner, "journals")
        sessions: Any = Way(server, self.owner, "sessions")
        directory: Any = SimDirectory(self._replicas, self.owner, self.loop)
        keyring: Any = SimKeyring()
        tasks = Tasks(self._crashed)
        self.deps = Deps(
            settings=SETTINGS,
            clock=clock,
            ids=ids,
            tasks=tasks,
            keyring=keyring,
            sessions=sessions,
            directory=directory,
            admission=Admission(SETTINGS.max_turns),
            screen=Screen(),
            models=MODELS,
            name=self.name,
            journals=journals,
            recorder=Recorder(journals, clock),
            mirrors=Mirrors(journals, clock, tasks.start),
            turns=Turns(tasks),
            waiting=(waiting := WaitingRoom(SETTINGS.max_held, clock)),
            scalings=scalings(MemoryScaling(), self.name, MODELS, waiting, clock),
        )
        self.takeover = Takeover(self.deps)
        self.inference = Inference(self.deps)
        self.vital = [
            tasks.start(self.deps.recorder.run(), "recorder"),
            tasks.start(self.takeover.watch(), "takeover"),
        ]

    @property
    def alive(self) -> bool:
        return not self.owner.dead

    def open(self, method: str, request: Any, caller: str, deadline: float, slow: float = 0.0) -> Call:
        call = Call(self, caller, deadline, slow=slow)
        if not self.accepting or not self.alive:
            call.ends(End("TRANSPORT"))
            return call
        self.calls = [other for other in self.calls if not other.over]
        self.calls.append(call)
        self.loop.call_later(WIRE, self._begin, call, method, request, context=self.owner.context)
        return call

    def kill(self) -> None:
        """As SIGKILL: nothing of it goes on, and its connections break."""
        self.loop.freeze(self.owner)
        self.owner.dead, self.accepting = True, False
        for call in self.calls:
            call.ends(End("TRANSPORT"))
        for replica in self._replicas:
            replica.forget(self.owner)

    async def shut_down(self) -> None:
        """As SIGTERM; to be run in its own process."""
        self.accepting = False
        await drain(self.deps, self.takeover)
        await asyncio.sleep(LAST_WORDS)
        self.kill()

    def _begin(self, call: Call, method: str, request: Any) -> None:
        if not call.over:
            call.task = asyncio.create_task(self._serve(call, method, request))
            call.task.add_done_callback(partial(self._served, call, method))

    async def _serve(self, call: Call, method: str, request: Any) -> None:
        context: Any = call
        try:
            async with asyncio.timeout(call.time_remaining()):
                reply = await getattr(self.inference, method)(request, context)
            call.ends(End("", reply))
        except HeadraceError as error:
            call.ends(End(error.outcome.upper(), None, error.message))
        except TimeoutError:
            call.ends(End("DEADLINE"))

    def _served(self, call: Call, method: str, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(method, error)
            call.ends(End("INTERNAL"))

    def _crashed(self, name: str, error: BaseException) -> None:
        self._crashes.append(f"{self.name}: {name} crashed: {error!r} {_where(error)}")


def _where(error: BaseException) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f"{at.tb_frame.f_code.co_filename.rpartition('/')[2]}:{at.tb_lineno}"
