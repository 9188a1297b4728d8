"""What a seed makes of a run: the clients, and the faults with their times."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.sim.caller import Plan

FAULTS_END = 5.0  # seconds; what is broken then heals
TENANTS = ("acme", "globex")


@dataclass(frozen=True, slots=True)
class Fault:
    at: float
    kind: str
    target: int = 0
    seconds: float = 0.0
    verb: str = ""  # of the store, after whose execution it strikes
    count: int = 0


KINDS = {
    "kill": 5,
    "kill_at": 5,
    "taker_dies": 2,  # a gateway is killed, and the one that takes a turn of it over as well
    "take_is_forgotten": 2,  # by a failover of the store
    "freeze": 4,
    "cut": 4,
    "drain": 3,
    "start": 1,
    "store_freezes": 3,
    "store_away": 3,
    "store_fails_over": 2,
    "store_forgets": 2,  # what it was asked for, and all that came after, by a failover
    "store_restarts_empty": 1,
    "store_loses": 3,
    "replica_dies": 3,
    "replica_hangs": 3,
    "replica_drains": 2,
    "engine_fails": 2,
}
FORGETS = {"store_fails_over", "store_forgets", "take_is_forgotten", "store_restarts_empty"}
STORE_FAULTS = {"cut", "store_freezes", "store_away", "store_loses"} | FORGETS
VERBS = (
    "create",
    "create",
    "append",
    "append",
    "take",
    "take",
    "claimed",
    "read",
    "sessions.append",
    "confirm",
)


def draw_faults(rng: random.Random, focus: Sequence[tuple[str, str]]) -> list[Fault]:
    """`focus`: kinds that happen in any case, each with the verb that it waits for, if it does."""
    faults = [_fault(rng) for _ in range(rng.choice((0, 1, 2, 3, 4, 6)))]
    for kind, verb in focus:
        faults.append(replace(_fault(rng), kind=kind, verb=verb, count=1))
    return sorted(faults, key=lambda fault: fault.at)


def _fault(rng: random.Random) -> Fault:
    [kind] = rng.choices(list(KINDS), list(KINDS.values()))
    at = rng.uniform(0.05, FAULTS_END - 1.5)
    seconds = rng.choice((rng.uniform(0.05, 0.5), rng.uniform(0.3, 5)))
    verb = rng.choice(VERBS)
    count = rng.randrange(1, 12) if verb == "append" else rng.randrange(1, 4)
    return Fault(at, kind, rng.randrange(8), min(seconds, FAULTS_END - at), verb, count)


def draw_plans(rng: random.Random, sessions: dict[str, str]) -> list[tuple[float, Plan]]:
    """Clients with the times at which they begin. `sessions`: tenant to its session."""
    plans: list[tuple[float, Plan]] = []
    for i in range(rng.randrange(2, 6)):
        at, plan = rng.uniform(0, 2.5), _plan(rng, i, sessions)
        plans.append((at, plan))
        if plan.key and rng.random() < 0.6:
            plans.append((at + rng.choice((0.0, 0.01, rng.uniform(0, 4))), plan))
    return plans


def _plan(rng: random.Random, i: int, sessions: dict[str, str]) -> Plan:
    tenant = rng.choice(TENANTS)
    session = sessions[tenant] if rng.random() < 0.3 else ""
    method = rng.choices(("StreamGenerate", "Generate", "StartTurn"), (7, 2, 2))[0]
    keyed = rng.random() < (0.4 if method == "StreamGenerate" else 0.7)
    n = 2 if rng.random() < 0.15 and not session else 1
    leaves = rng.random() < 0.35
    return Plan(
        tenant=tenant,
        text=f"question {i}",
        max_tokens=rng.choice((1, 4, 30, 60)),
        timeout=rng.choice((3, 10, 20, 20)),
        method=method,
        key=f"key {i}" if keyed else "",
        session=session,
        queue=bool(session) and rng.random() < 0.5,
        stop=("aa", "b_") if rng.random() < 0.15 else (),
        n=n,
        seed=rng.randrange(1000),
        linger=rng.choice((None, None, 1, 4)) if method == "StreamGenerate" else None,
        durable=rng.random() < 0.15,
        leave_after=rng.randrange(1, 12) if leaves else None,
        away=rng.choice((0.01, rng.uniform(0, 1.5), rng.uniform(0, 4))),
        cancel_after=rng.uniform(0, 3) if rng.random() < 0.1 else None,
        slow=rng.uniform(0.01, 0.08) if rng.random() < 0.15 else 0.0,
        impatient=rng.random() < 0.3,
    )
