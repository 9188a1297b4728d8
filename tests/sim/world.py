"""One seed's world: gateways on one store and the same replicas, clients, and faults. No time passes but its own."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import structlog

from tests.sim.caller import Caller, History
from tests.sim.gateway import SimGateway
from tests.sim.loop import WORLD, LoopClock, Owner, Stuck, VirtualLoop
from tests.sim.plan import FAULTS_END, TENANTS, Fault, draw_faults, draw_plans
from tests.sim.replica import Replica
from tests.sim.store import Server

SETTLE = 7.0  # seconds after the last fault within which everything that goes on has found its way
QUIET = 5.0  # seconds after the last client within which nothing is held any more
TRACE = 400  # lines


class SeededIds:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def new(self, prefix: str) -> str:
        return f"{prefix}_{self._rng.getrandbits(128):032x}"


@dataclass
class World:
    seed: int
    loop: VirtualLoop
    focus: Sequence[tuple[str, str]] = ()
    histories: list[History] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    trace: list[tuple[float, str]] = field(default_factory=list)
    gateways: list[SimGateway] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        random.seed(self.seed)  # the gateways share work by it
        self._ids = SeededIds(random.Random(self.seed + 1))
        self.clock = LoopClock(self.loop)
        self.server = Server(self.loop, self.clock, self._ids, self.rng)
        self.server.latency = self.rng.choice((0.0005, 0.002, 0.02))
        step, capacity = self.rng.choice((0.03, 0.06, 0.1)), self.rng.choice((2, 16, 16, 16))
        count = self.rng.choice((1, 2, 2, 3))
        self.replicas = [Replica(f"replica {i}", self.loop, step, capacity) for i in range(count)]
        self.faults = draw_faults(self.rng, self.focus)
        self._at_verb: list[Fault] = []
        self.server.on_executed, self.server.on_executing = self._executed, self._executing

    @property
    def alive(self) -> list[SimGateway]:
        return [gateway for gateway in self.gateways if gateway.alive]

    @property
    def accepting(self) -> list[SimGateway]:
        return [gateway for gateway in self.gateways if gateway.accepting]

    def note(self, what: str) -> None:
        self.trace.append((self.loop.time(), what))

    def start(self) -> None:
        gateway = SimGateway(
            f"gateway {len(self.gateways)}", self.loop, self.server, self.replicas, self._ids, self.crashes
        )
        self.gateways.append(gateway)
        self.note(f"{gateway.name} starts")

    async def run(self) -> None:
        for tenant in TENANTS:
            self.sessions[tenant] = (await self.server.sessions.create(tenant, (), 3600)).id
        for _ in range(self.rng.choice((1, 2, 2, 3))):
            self.start()
        for fault in self.faults:
            self.loop.call_at(fault.at, self._strike, fault, context=WORLD)
        self.loop.call_at(FAULTS_END, self._heal, context=WORLD)
        plans = draw_plans(self.rng, self.sessions)
        await asyncio.gather(*(self._client(at, plan) for at, plan in plans))
        await self._settle()

    async def _settle(self) -> None:
        """Returns when nothing is held any more, or the time for that is over."""
        from tests.sim.check import at_rest, kept_whole

        end = max(self.loop.time(), FAULTS_END + SETTLE) + QUIET
        await asyncio.sleep(max(0.0, FAULTS_END + 1 - self.loop.time()))
        while self.loop.time() < end and (at_rest(self) or kept_whole(self)):
            await asyncio.sleep(0.5)

    async def _client(self, at: float, plan: object) -> None:
        await asyncio.sleep(at)
        rng = random.Random(self.rng.random())
        caller = Caller(plan, self.loop, lambda: self.accepting, rng, FAULTS_END + SETTLE, self.note)  # type: ignore[arg-type]
        self.histories.append(caller.history)
        await caller.run()

    def _strike(self, fault: Fault) -> None:
        self.note(f"fault: {fault.kind} {fault.target} {fault.seconds:.2f} s {fault.verb} {fault.count}")
        getattr(self, f"_{fault.kind}")(fault)

    def _later(self, seconds: float, what: object, *args: object) -> None:
        self.loop.call_later(seconds, what, *args, context=WORLD)  # type: ignore[arg-type]

    def _gateway(self, fault: Fault) -> SimGateway | None:
        accepting = self.accepting
        return accepting[fault.target % len(accepting)] if accepting else None

    def _replace(self, seconds: float) -> None:
        self._later(max(0.05, seconds), self.start)

    def _kill(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault)) is not None:
            self._kill_it(gateway, fault)

    def _kill_it(self, gateway: SimGateway, fault: Fault) -> None:
        self.note(f"{gateway.name} is killed")
        gateway.kill()
        self._replace(fault.seconds)

    def _taker_dies(self, fault: Fault) -> None:
        self._at_verb.append(replace(fault, kind="kill_at", verb="take", count=1))
        self._kill(fault)

    def _take_is_forgotten(self, fault: Fault) -> None:
        self._at_verb.append(replace(fault, kind="store_forgets", verb="take", count=1))
        self._kill(fault)

    def _kill_at(self, fault: Fault) -> None:
        self._at_verb.append(fault)

    def _executed(self, owner: Owner, verb: str) -> None:
        for fault in [f for f in self._at_verb if (f.kind, f.verb) == ("kill_at", verb)]:
            if not self._counted(fault):
                continue
            for gateway in self.alive:
                if gateway.owner is owner:
                    self.note(f"at {verb}")
                    self._kill_it(gateway, fault)

    def _store_forgets(self, fault: Fault) -> None:
        self._at_verb.append(fault)

    def _executing(self, verb: str) -> None:
        for fault in [f for f in self._at_verb if (f.kind, f.verb) == ("store_forgets", verb)]:
            if self._counted(fault):
                self.note(f"the store forgets {verb}")
                self._store_fails_over(fault)

    def _counted(self, fault: Fault) -> bool:
        """Whether it strikes now; else it waits for the next one."""
        self._at_verb.remove(fault)
        if fault.count > 1:
            self._at_verb.append(replace(fault, count=fault.count - 1))
        return fault.count <= 1

    def _freeze(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault)) is not None:
            self.loop.freeze(gateway.owner)
            self._later(fault.seconds, self._thaw, gateway)

    def _thaw(self, gateway: SimGateway) -> None:
        self.note(f"{gateway.name} thaws")
        self.loop.thaw(gateway.owner)

    def _cut(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault)) is not None:
            self.note(f"{gateway.name} is cut off")
            self.server.cut[gateway.owner] = self.loop.time() + fault.seconds

    def _drain(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault)) is not None:
            self.note(f"{gateway.name} drains")
            self.loop.create_task(gateway.shut_down(), context=gateway.owner.context)
            self._replace(fault.seconds)

    def _start(self, fault: Fault) -> None:
        self.start()

    def _store_freezes(self, fault: Fault) -> None:
        self.server.frozen_until = max(self.server.frozen_until, self.loop.time() + fault.seconds)

    def _store_away(self, fault: Fault) -> None:
        self.server.down = True
        self._later(fault.seconds, self._store_back)

    def _store_back(self) -> None:
        self.note("the store is back")
        self.server.down = False

    def _store_fails_over(self, fault: Fault) -> None:
        self.server.falls_behind()
        self._later(min(fault.seconds, 0.5), self._fail_over)

    def _fail_over(self) -> None:
        self.note("the store fails over")
        self.server.fails_over()

    def _store_restarts_empty(self, fault: Fault) -> None:
        self.server.empty()
        self.server.wiped = True

    def _store_loses(self, fault: Fault) -> None:
        self.server.lost = 0.1
        self._later(fault.seconds, self._store_is_sound)

    def _store_is_sound(self) -> None:
        self.server.lost = 0.0

    def _replica(self, fault: Fault) -> Replica:
        return self.replicas[fault.target % len(self.replicas)]

    def _replica_dies(self, fault: Fault) -> None:
        replica = self._replica(fault)
        replica.die()
        self._later(fault.seconds, replica.come_back)

    def _replica_hangs(self, fault: Fault) -> None:
        replica = self._replica(fault)
        replica.hang(fault.seconds)
        self._later(fault.seconds, replica.come_back)

    def _replica_drains(self, fault: Fault) -> None:
        replica = self._replica(fault)
        replica.drain()
        self._later(0.5, replica.die)
        self._later(0.6 + fault.seconds, replica.come_back)

    def _engine_fails(self, fault: Fault) -> None:
        self._replica(fault).fail_one()

    def _heal(self) -> None:
        self.note("everything heals")
        self._at_verb.clear()
        self.server.down, self.server.lost, self.server.frozen_until = False, 0.0, 0.0
        self.server.cut.clear()
        for gateway in self.alive:
            self.loop.thaw(gateway.owner)
        while len(self.accepting) < 2:
            self.start()


@dataclass
class Run:
    """What came of a seed."""

    seed: int
    violations: list[str]
    trace: list[tuple[float, str]]
    steps: int
    seconds: float  # of virtual time


def silence() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
    )


def live(seed: int, focus: Sequence[tuple[str, str]] = ()) -> Run:
    """Runs a seed and checks what its clients saw and what is left. `focus`: faults that it has besides."""
    from tests.sim.check import violations

    loop = VirtualLoop()
    loop.set_exception_handler(lambda _, context: None)
    world = World(seed, loop, focus)
    try:
        loop.run_until_complete(world.run())
        found = loop.run_until_complete(violations(world))
    except Stuck as error:
        found = [f"the run ended: {error!r}"]
    run = Run(seed, found + world.crashes, world.trace[:TRACE], loop.steps, loop.time())
    _end(world, loop)
    return run


def _end(world: World, loop: VirtualLoop) -> None:
    """Ends what still runs, also what a dead gateway left, so that nothing of it is told to anybody."""
    for gateway in world.gateways:
        gateway.owner.dead = False
        loop.thaw(gateway.owner)
    for task in (left := asyncio.all_tasks(loop)):
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1))
    loop.close()
