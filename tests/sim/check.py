"""The promises, over what clients saw and what is left at the end."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.events import Failed, Finished
from services.core.request import Message, Role
from services.gateway.answer import fold
from services.gateway.wire import REASONS
from tests.sim.caller import LATE, History
from tests.sim.model import answer
from tests.sim.plan import FAULTS_END, FORGETS, STORE_FAULTS
from tests.sim.world import SETTLE, World

NAMES = {value: reason.value for reason, value in REASONS.items()}


async def violations(world: World) -> list[str]:
    sessions = {
        tenant: (await world.server.sessions.get(tenant, id)).messages if not world.server.wiped else None
        for tenant, id in world.sessions.items()
    }
    found = [f"{h.plan.text}: {part}" for h in world.histories for part in h.parts]
    for history in world.histories:
        found += [f"{history.plan.text}: {what}" for what in one_ending(history, world)]
        found += [f"{history.plan.text}: {what}" for what in well_founded(history, world)]
        found += [
            f"{history.plan.text}: {what}" for what in nothing_lost(history, sessions[history.plan.tenant])
        ]
        if not world.server.wiped:
            found += [f"{history.plan.text}: {what}" for what in same_as_kept(history, world)]
    found += one_execution(world)
    for tenant, messages in sessions.items():
        if messages is not None:
            found += acknowledged([h for h in world.histories if h.plan.tenant == tenant], messages)
    return [*found, *at_rest(world), *kept_whole(world)]


def one_ending(history: History, world: World) -> Iterator[str]:
    """P1. A turn whose store lost it, or that never was in it, may be gone with its gateway."""
    if history.ended:
        due = max(history.deadline, FAULTS_END + SETTLE) + LATE
        if history.ended_at > due:
            yield f"ended {history.ended_at - due:.1f} s too late"
    elif history.turn and not _excused(history, world):
        yield f"accepted as {history.turn}, no terminal event: {history.refused} {history.details}"


def _excused(history: History, world: World) -> bool:
    gone = history.refused in ("NOT_FOUND", "OUT_OF_RANGE", "TIME")
    return (world.server.wiped or not history.resumable) and gone


REPLICA_FAULTS = {"replica_dies", "replica_hangs", "replica_drains", "engine_fails"}
LONELY = {
    "freeze",
    "cut",
    "kill",
    "kill_at",
    "drain",
}  # after which a client may be away longer than it wants
WHY = {
    "engine_lost": REPLICA_FAULTS,
    "no_replica": REPLICA_FAULTS,
    "store_away": STORE_FAULTS,
    "not_found": FORGETS,
    "cancelled": LONELY | STORE_FAULTS,
}


def well_founded(history: History, world: World) -> Iterator[str]:
    """A turn ends without its answer for a reason only."""
    plan, how = history.plan, history.ended or history.refused.lower()
    kinds = {fault.kind for fault in world.faults}
    if how in ("finished", "transport", "time", "refused_full"):
        return
    reasons = {
        "deadline": (history.ended_at or world.loop.time()) >= _deadline(history, world) - 0.1,
        "conflict": bool(plan.session),
        "cancelled": plan.leave_after is not None or plan.cancel_after is not None or plan.impatient,
        "draining": not history.resumable or not history.turn,
        "out_of_range": world.server.wiped or not history.resumable,
        "not_found": not history.resumable,
        "precondition": world.server.wiped,
    }
    if not (reasons.get(how) or WHY.get(how, set()) & kinds):
        yield f"ended {how} without a reason: {history.details}"


def _deadline(history: History, world: World) -> float:
    """The turn's own, if another call with the same key began it."""
    plan = history.plan
    same = [h.deadline for h in world.histories if plan.key and h.plan == plan]
    return min([history.deadline, *same])


def nothing_lost(history: History, messages: Sequence[Message] | None) -> Iterator[str]:
    """P2."""
    pasts = _pasts(history, messages)
    wrong = [list(_parts(history, past)) for past in pasts]
    if wrong and all(wrong):
        yield min(wrong, key=len)[0]


def _pasts(history: History, messages: Sequence[Message] | None) -> list[Sequence[Message]]:
    """The histories that the turn can have gone on from."""
    if not history.plan.session:
        return [()]
    return [] if messages is None else [messages[:i] for i in range(0, len(messages) + 1, 2)]


def _parts(history: History, past: Sequence[Message]) -> Iterator[str]:
    plan = history.plan
    said = (*past, Message(Role.USER, plan.text))
    reasons = _reasons(history.finished) if history.ended == "finished" else []
    for choice, text in enumerate(history.texts):
        whole, reason = answer(said, plan.seed + choice, plan.max_tokens, plan.stop)
        if not whole.startswith(text):
            yield f"answer {choice} is {text!r}, should be {whole!r}"
        elif reasons and (text, reasons[choice]) != (whole, reason):
            yield f"answer {choice} finished as {text!r} {reasons[choice]}, should be {whole!r} {reason}"


def _reasons(finished: Any) -> list[str]:
    if isinstance(finished, pb.Finished):
        return [NAMES[finished.reason], *(NAMES[more.reason] for more in finished.more)]
    return [NAMES[finished.finish_reason], *(NAMES[more.finish_reason] for more in finished.more)]


def one_execution(world: World) -> list[str]:
    """P3: of one key all finished answers are equal, and the store has one turn of it that is not void."""
    answers: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    turns: dict[tuple[str, str], set[str]] = defaultdict(set)
    for history in world.histories:
        if history.plan.key and history.ended == "finished":
            owner = (history.plan.tenant, history.plan.key)
            answers[owner].add(tuple(history.texts))
            turns[owner].add(history.turn)
    found = []
    if not world.server.wiped:
        found += [f"{owner}: {len(texts)} answers" for owner, texts in answers.items() if len(texts) > 1]
        found += [f"{owner}: turns {sorted(ids)}" for owner, ids in turns.items() if len(ids) > 1]
        found += _twice_kept(world)
    return found


def _twice_kept(world: World) -> list[str]:
    kept: dict[tuple[str, str], list[str]] = defaultdict(list)
    for id, turn in world.server.journals._turns.items():
        claim = turn.record.claim
        if claim is not None and not (turn.ended and turn.seq < 3):
            kept[turn.record.tenant, claim.key].append(id)
    return [f"{owner}: the store has {ids}" for owner, ids in kept.items() if len(ids) > 1]


def acknowledged(histories: Sequence[History], messages: Sequence[Message]) -> list[str]:
    """P4: what was acknowledged is in the session once, what was not at most once, and each answer is right."""
    found, texts = [], [m.text for m in messages if m.role is Role.USER]
    for history in histories:
        if not history.plan.session:
            continue
        count = texts.count(history.plan.text)
        if (
            count > 1
            or (history.ended == "finished" and count != 1)
            or (history.ended == "conflict" and count)
        ):
            found.append(f"{history.plan.text}: {history.ended}, {count} times in its session")
    plans = {history.plan.text: history.plan for history in histories}
    for i in range(0, len(messages), 2):
        plan = plans[messages[i].text]
        whole, _ = answer(messages[: i + 1], plan.seed, plan.max_tokens, plan.stop)
        if messages[i + 1].text != whole:
            found.append(f"the session has {messages[i + 1].text!r} for {plan.text}, should be {whole!r}")
    return found


def at_rest(world: World) -> list[str]:
    """P7: nothing is held once everything has ended."""
    found = []
    for gateway in world.alive:
        deps = gateway.deps
        held = {
            "turns": len(deps.turns),
            "slots": deps.admission.held,
            "recordings": len(deps.recorder),
            "mirrors": len(deps.mirrors._all),
            "tasks": len(deps.tasks) - len(gateway.vital),
            "orders": sum(link.open for link in deps.directory.links()),  # type: ignore[attr-defined]
            "calls": sum(call.task is not None and not call.task.done() for call in gateway.calls),
        }
        found += [f"{gateway.name} holds {count} {what} at rest" for what, count in held.items() if count]
        found += [f"{gateway.name}: {task.get_name()} has ended" for task in gateway.vital if task.done()]
    found += [f"{r.lease.replica} runs {len(r.orders)} orders" for r in world.replicas if r.orders]
    return found


def kept_whole(world: World) -> list[str]:
    """Each turn in the store has ended, with one terminal event."""
    found = []
    for id in list(world.server.journals._turns):
        events = [entry.event for page in _read(world, id) for entry in page.entries]
        ends = [i for i, event in enumerate(events, 1) if isinstance(event, Finished | Failed)]
        if ends != [len(events)]:
            found.append(f"{id} in the store has {len(events)} events, terminal ones at {ends}")
    return found


def same_as_kept(history: History, world: World) -> Iterator[str]:
    """What a client was told of an ending is what everybody else reads later. While the store is away, the ending
    of a turn that is in no session is told without it."""
    plan = history.plan
    must = plan.session or plan.durable or plan.method == "StartTurn"
    sound = not any(fault.kind in STORE_FAULTS for fault in world.faults)
    if not (history.turn and history.ended and history.resumable and (must or sound)):
        return
    events = [entry.event for page in _read(world, history.turn) for entry in page.entries]
    if not events:
        yield f"{history.turn} is not in the store"
        return
    texts = [each.message().text for each in fold(events, history.plan.n)]
    last = events[-1]
    told = last.error.outcome.value if isinstance(last, Failed) else "finished"
    if (texts, told) != (history.texts, history.ended):
        yield f"was told {history.texts} {history.ended}, the store has {texts} {told}"


def _read(world: World, id: str) -> Any:
    try:
        world.server.journals.read(id, "", 0).send(None)  # type: ignore[attr-defined]
    except StopIteration as done:
        return done.value
