"""What fault tests have in common: turns to run under a fault, and the promises that they are judged by."""

import asyncio
from collections.abc import Sequence

from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.history import History
from tests.faults.world import World

SHORT, TOKENS, LONG = 12, 150, 400
CANARY = 40  # characters: no two answers begin with the same
Turn = tuple[History, "asyncio.Task[History]"]


def prompts(count: int, of: str = "turn") -> list[str]:
    return [f"{of} {i}" for i in range(count)]


def begin(caller: Caller, prompt: str, tokens: int = TOKENS, key: str = "", **fields: object) -> Turn:
    """A turn under way, with an idempotency key of its own unless one is given."""
    history = caller.history(prompt, key=key or f"key of {prompt}")
    return history, asyncio.create_task(caller.run(history, max_tokens=tokens, **fields))


async def streams(caller: Caller, count: int, tokens: int = TOKENS, of: str = "turn") -> list[Turn]:
    """Turns under way, all beyond their third token."""
    begun = [begin(caller, prompt, tokens) for prompt in prompts(count, of)]
    await asyncio.gather(*(history.tokens(3) for history, _ in begun))
    return begun


async def ends(begun: list[Turn]) -> list[History]:
    return list(await asyncio.gather(*(turn for _, turn in begun)))


async def check(
    made: World, histories: Sequence[History], answers: dict[str, str], *, rest: float = 10
) -> None:
    """P1, P2, P3, P5, P7 and P10, and that every turn completed."""
    assert promises.one_ending(histories) == []
    assert promises.nothing_lost(histories, answers) == []
    assert promises.one_execution(histories, made.orders()) == []
    assert all(history.completed for history in histories), promises.tally(histories)
    assert promises.no_strangers(histories, canaries(histories)) == []
    assert promises.no_content(made.logs(), [answer[:CANARY] for answer in answers.values()]) == []
    assert await made.at_rest(rest) == []


def canaries(histories: Sequence[History]) -> dict[str, str]:
    """The beginning of an answer that each tenant alone was given: tenants ask different questions."""
    return {history.tenant: history.text[:CANARY] for history in histories}


def worst_gap(histories: Sequence[History], moment: float) -> float:
    """Seconds that the slowest of the turns that still ran waited for its next token."""
    return max(history.next_after(moment) for history in histories if history.events[-1].at > moment)
