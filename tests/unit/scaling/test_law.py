"""The law: what each rule says."""

from cluster.scaling.law import Decision, HeldBecause, Memory, Observation, Reason, decide
from cluster.scaling.settings import ScalingSettings

SETTINGS = ScalingSettings(max_replicas=64, target_turns=10, min_replicas=1)
STEP = 1.0


def watched(
    seconds: float,
    observations: list[Observation | None],
    target: int,
    held: int | None = 0,
    settings: ScalingSettings = SETTINGS,
) -> Decision:
    """The first decision that changes something, or the last of `seconds`."""
    memory, now = Memory(), 1000.0
    end = now + seconds
    while True:
        decision, memory = decide(now, observations, target, held, settings, memory)
        if decision.desired != target or now >= end:
            return decision
        now += STEP


def busy(turns: int, replicas: int) -> list[Observation | None]:
    return [Observation(running=turns, kv_use=0.1)] * replicas


def test_more_turns_than_the_target_add_replicas_after_the_delay() -> None:
    early = watched(29, busy(20, 4), 4)
    assert (early.desired, early.held_because) == (4, HeldBecause.DELAY)
    late = watched(31, busy(15, 4), 4)
    assert (late.desired, late.reason, late.held_because) == (8, Reason.TURNS, None)


def test_silent_replicas_remove_nothing_and_the_known_ones_may_add() -> None:
    held = watched(2000, [None, *busy(0, 7)], 8)
    assert (held.desired, held.held_because, held.stale) == (8, HeldBecause.MISSING, 1)
    assert watched(31, [None, *busy(15, 7)], 8).desired == 13


def test_less_is_removed_one_by_one() -> None:
    decision = watched(601, busy(1, 8), 8)
    assert (decision.desired, decision.reason) == (7, Reason.LESS)


def test_an_idle_model_sleeps_and_wakes_for_held_turns() -> None:
    sleepy = SETTINGS.model_copy(update={"min_replicas": 0})
    assert watched(1799, busy(0, 1), 1, settings=sleepy).desired == 1
    assert watched(1801, [Observation()], 1, settings=sleepy).reason is Reason.IDLE
    woken = watched(0, [], 0, held=1, settings=sleepy)
    assert (woken.desired, woken.reason) == (1, Reason.WAKE)


def test_a_lull_shorter_than_the_delay_removes_nothing() -> None:
    """Busy for a minute, quiet for nine, over and over."""
    memory, now = Memory(), 0.0
    while now < 2 * 3600:
        turns = 8 if now % 600 < 60 else 1
        decision, memory = decide(now, busy(turns, 8), 8, 0, SETTINGS, memory)
        assert decision.desired == 8
        now += STEP


def test_a_peak_shorter_than_the_delay_adds_nothing() -> None:
    memory, now = Memory(), 0.0
    while now < 3600:
        turns = 30 if now % 60 < 25 else 6
        decision, memory = decide(now, busy(turns, 8), 8, 0, SETTINGS, memory)
        assert decision.desired == 8
        now += STEP


def test_replicas_that_load_are_waited_for() -> None:
    memory, now, reasons = Memory(), 0.0, set()
    while now < 600:
        decision, memory = decide(now, busy(40, 2), 4, 0, SETTINGS, memory)
        assert decision.desired == 4
        reasons.add(decision.held_because)
        now += STEP
    assert reasons == {HeldBecause.DELAY, HeldBecause.PENDING}


def test_each_signal_adds_replicas_and_is_the_reason() -> None:
    loads = {
        Reason.TURNS: Observation(running=20),
        Reason.PREFILL: Observation(queued_tokens=60_000),
        Reason.KV: Observation(kv_use=1.0),
    }
    for reason, load in loads.items():
        assert watched(31, [load] * 4, 4).reason is reason
    assert watched(31, busy(0, 4), 4, held=100).reason is Reason.HELD


def test_after_a_silence_of_the_caller_the_delay_begins_anew() -> None:
    memory, now = Memory(), 0.0
    for _ in range(29):
        _, memory = decide(now, busy(20, 4), 4, 0, SETTINGS, memory)
        now += STEP
    now += 16
    decision, memory = decide(now, busy(20, 4), 4, 0, SETTINGS, memory)
    assert (decision.desired, decision.held_because) == (4, HeldBecause.DELAY)


def test_bounds_that_changed_are_followed_at_once() -> None:
    for target, bound in ((100, 64), (0, 1)):
        decision, _ = decide(0.0, busy(1, 1), target, None, SETTINGS, Memory())
        assert (decision.desired, decision.reason) == (bound, Reason.BOUNDS)
