"""The promises P1 to P10 as pure functions: histories in, violations out. An empty list is a promise kept."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.history import TERMINAL, History, text_of

LATE = 1.0  # seconds after the deadline


def one_ending(histories: Iterable[History]) -> list[str]:
    """P1: each turn has one terminal event, nothing follows it, and it is there by the deadline and a second.

    A refusal before `started` is an ending too: that turn was never accepted."""
    found = []
    for history in histories:
        ends = [event for event in history.events if event.kind in TERMINAL]
        if len(ends) > 1:
            found.append(f"{name(history)}: {len(ends)} terminal events")
        if ends and history.events[-1] is not ends[0]:
            found.append(f"{name(history)}: {history.events[-1].kind} after the terminal event")
        if not ends and history.turn:
            last = history.attempts[-1]
            found.append(f"{name(history)}: accepted, no terminal event ({last.status} {last.details})")
        if not ends and not (history.attempts and history.attempts[-1].status):
            found.append(f"{name(history)}: the client was never told an ending")
        if ends and ends[0].at > history.deadline + LATE:
            found.append(f"{name(history)}: ended {ends[0].at - history.deadline:.1f} s after its deadline")
    return found


def nothing_lost(histories: Iterable[History], twins: Mapping[str, str]) -> list[str]:
    """P2: at every event the answer is a prefix of the unfailed twin's, positions rise, and a completed answer
    is the whole twin. `twins` has the answer to each prompt."""
    return [
        f"{name(history)}: {what}"
        for history in histories
        for what in (*_order(history), *_prefixes(history, twins[history.prompt]), *_counted(history))
    ]


def _order(history: History) -> Iterable[str]:
    for before, event in pairwise(history.events):
        (epoch, seq), (was, reached) = event.position, before.position
        if event.kind == "rewind":
            # A store that failed over may have forgotten the takeover whose events were read: then the epoch falls.
            if seq > reached or (seq == reached and epoch >= was):
                yield f"rewind to {(epoch, seq)} after {(was, reached)}"
        elif before.kind == "rewind" and epoch <= was:
            yield f"rewind without another gateway, {event.kind} {(epoch, seq)} follows"
        elif epoch < was or seq <= reached:
            yield f"{event.kind} {(epoch, seq)} after {(was, reached)}"
    begun = 0
    for event in history.events:
        if event.kind == "rewind" and event.position.seq == 0:
            begun = 0  # back before the beginning
        begun += event.kind == "started"
        if begun > 1:
            yield "started twice"


def _prefixes(history: History, twin: str) -> Iterable[str]:
    for i, event in enumerate(history.events, 1):
        text = text_of(history.events[:i]) if event.text else ""
        if not twin.startswith(text):
            yield f"at {tuple(event.position)} the answer parts from the twin's after {_common(text, twin)} characters"
            return
    if history.completed and history.text != twin:
        yield f"completed with {len(history.text)} of the twin's {len(twin)} characters"


def _common(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _counted(history: History) -> Iterable[str]:
    usage = next((event.tokens for event in history.events if event.kind == "usage"), None)
    if history.completed and not history.rewinds and usage is not None and usage != history.delivered:
        yield f"usage says {usage} tokens, deltas brought {history.delivered}"


@dataclass(frozen=True, slots=True)
class Order:
    """What a replica was asked to do: by its own account."""

    turn: str
    prompt: int  # tokens
    at: float  # seconds of the monotonic clock, which processes of one machine share


def one_execution(histories: Iterable[History], orders: Iterable[Order] = ()) -> list[str]:
    """P3: what one (tenant, key) asked for is one turn for everybody who asks, and one answer; and the engines
    ran no turn for it besides, but the continuations of that one, each from further on."""
    turns: dict[tuple[str, str], set[str]] = defaultdict(set)
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for history in histories:
        if not history.key:
            continue
        owner = (history.tenant, history.key)
        turns[owner] |= {event.turn for event in history.events if event.kind == "started"}
        if history.completed:
            answers[owner].add(history.text)
    found = [f"{owner}: {len(ids)} turns" for owner, ids in turns.items() if len(ids) > 1]
    found += [
        f"{owner}: {len(texts)} different answers" for owner, texts in answers.items() if len(texts) > 1
    ]
    known = {id for ids in turns.values() for id in ids}
    return found + _backwards([order for order in orders if order.turn in known])


def _backwards(orders: Sequence[Order]) -> list[str]:
    """A continuation carries at least the ids that the order before it carried."""
    found, last = [], dict[str, Order]()
    for order in sorted(orders, key=lambda order: order.at):
        before = last.get(order.turn)
        if before is not None and order.prompt < before.prompt:
            found.append(f"{order.turn}: begun again at {order.prompt} tokens after {before.prompt}")
        last[order.turn] = order
    return found


def acknowledged_survive(acknowledged: Iterable[str], kept: Iterable[str]) -> list[str]:
    """P4: every acknowledged session turn is in the store that was promoted."""
    return [f"acknowledged and lost: {lost}" for lost in sorted(set(acknowledged) - set(kept))]


def no_strangers(
    histories: Iterable[History], canaries: Mapping[str, str], artefacts: Iterable[str] = ()
) -> list[str]:
    """P5: no tenant sees another's canary, and no artefact of the run shows any. `canaries` is tenant to text."""
    found = []
    for history in histories:
        said = [event.text for event in history.events] + [attempt.details for attempt in history.attempts]
        foreign = [owner for owner, text in canaries.items() if owner != history.tenant]
        found += [
            f"{history.tenant} saw {owner}'s"
            for owner in foreign
            if any(canaries[owner] in text for text in (*said, history.text))
        ]
    for text in artefacts:
        found += [f"an artefact shows {owner}'s" for owner, canary in canaries.items() if canary in text]
    return found


@dataclass(frozen=True, slots=True)
class Second:
    """What one second of load brought: turns that completed in time."""

    at: float  # seconds since the surge began
    good: int


def overload(
    seconds: Sequence[Second], capacity: float, surge: float, *, share: float = 0.9, recovery: float = 10
) -> list[str]:
    """P6: during a surge of `surge` seconds goodput is at least `share` of `capacity` (turns/s), and it is that
    again within `recovery` seconds after."""
    during = [second.good for second in seconds if 0 <= second.at < surge]
    found = []
    if not during or sum(during) / len(during) < share * capacity:
        mean = sum(during) / max(1, len(during))
        found.append(f"goodput {mean:.1f}/s during the surge, capacity {capacity:.1f}/s")
    after = [second for second in seconds if surge <= second.at < surge + recovery]
    if not any(second.good >= share * capacity for second in after):
        found.append(f"goodput is not back within {recovery:g} s after the surge")
    return found


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a system holds when nobody asks anything of it, and what it counted until then."""

    held: Mapping[str, float]  # slots, KV use, running turns, orders at engines: by name
    admitted: int
    outcomes: Mapping[str, int]


def conserved(ledger: Ledger) -> list[str]:
    """P7: all is back to zero, and every admitted turn has an outcome."""
    found = [f"{what} is {value:g} at rest" for what, value in ledger.held.items() if value]
    if ledger.admitted != (told := sum(ledger.outcomes.values())):
        found.append(f"{ledger.admitted} turns admitted, {told} outcomes")
    return found


@dataclass(frozen=True, slots=True)
class Drain:
    """A process that was asked to leave."""

    exit_code: int | None
    seconds: float  # from SIGTERM to its end
    grace: float
    accepted_after: int  # turns that it began once it had said NOT_SERVING


def drained(drain: Drain, histories: Iterable[History]) -> list[str]:
    """P8: it leaves in time and in peace, begins nothing new, and each of its turns completed there or where it
    was resumed."""
    found = []
    if drain.exit_code != 0:
        found.append(f"exit code {drain.exit_code}")
    if drain.seconds > drain.grace + 1:
        found.append(f"left after {drain.seconds:.1f} s, grace {drain.grace:g} s")
    if drain.accepted_after:
        found.append(f"{drain.accepted_after} turns begun after NOT_SERVING")
    return found + [f"{name(history)}: lost by the drain" for history in histories if not history.completed]


def neighbours_unharmed(before: Sequence[float], during: Sequence[float], most: float = 0.2) -> list[str]:
    """P9: the worst percent of a well-behaved tenant's latencies moves by less than `most`."""
    calm, attacked = percentile(before, 0.99), percentile(during, 0.99)
    return [] if attacked <= calm * (1 + most) else [f"p99 {attacked:.3f} s, {calm:.3f} s without the attack"]


def no_content(artefacts: Mapping[str, str], secrets: Iterable[str]) -> list[str]:
    """P10: nothing private in any artefact of the run."""
    private = list(secrets)
    return [
        f"{where} shows private text {i}"
        for where, text in artefacts.items()
        for i, one in enumerate(private)
        if one in text
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def name(history: History) -> str:
    return history.turn or history.key or history.prompt[:20]


def tally(histories: Iterable[History]) -> Counter[str]:
    """How the turns ended, for a table."""
    return Counter(
        history.terminal.outcome or "completed"
        if history.terminal
        else f"refused {history.attempts[-1].reason}"
        for history in histories
    )
