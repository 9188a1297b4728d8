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
