"""The gateway's end of the engine link, on a simulated replica over loopback."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from cluster.engine.sim import SimSettings, SimTiming, expected_logprobs, expected_tokens
from services.backend.link import Link, LinkState
from services.backend.port import Cause, Order
from services.core.request import Sampling
from tests.support.gateway import FAST, TOKEN, sim_replica, until

PROMPT = (11, 12, 13)


class Ear:
    """A sink that keeps every call, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def prefilled(self, cached_tokens: int, queued: float) -> None:
        """Timing is tested elsewhere."""

    def logprobs(self, sampled: Sequence[float], top_ids: Sequence[int], top: Sequence[float]) -> None:
        self.calls.append(("logprobs", list(sampled), list(top_ids), list(top)))

    def tokens(self, ids: Sequence[int]) -> None:
        self.calls.append(("tokens", list(ids)))

    def ended(self, cause: Cause, detail: str, stop_id: int) -> None:
        self.calls.append(("ended", cause, stop_id))
        self.done.set_result(None)


def order(**fields: Any) -> Order:
    values: dict[str, Any] = {
        "turn": "t",
        "prompt": PROMPT,
        "max_tokens": 30,
        "min_tokens": 0,
        "stop_ids": (),
        "sampling": Sampling(),
        "cache_salt": "",
    }
    return Order(**values | fields)


@asynccontextmanager
async def connected(sim: SimSettings) -> AsyncIterator[Link]:
    async with sim_replica("r", sim) as replica:
        up = asyncio.Event()

        def heard(state: LinkState, reason: str) -> None:
            if state is LinkState.UP:
                up.set()

        link = Link(replica.lease, "g", TOKEN, heard)
        serving = asyncio.create_task(link.serve())
        await up.wait()
        yield link
        serving.cancel()
        await asyncio.wait([serving])


async def test_log_probabilities_are_heard_before_their_tokens() -> None:
    async with connected(SimSettings(timing=FAST)) as link:
        asked, other = Ear(), Ear()
        link.submit(order(logprobs=2), asked)
        link.submit(order(), other)
        await asked.done
        await other.done
    assert {call[0] for call in other.calls} == {"tokens", "ended"}
    kinds = [call[0] for call in asked.calls]
    assert kinds == ["logprobs", "tokens"] * (len(kinds) // 2) + ["ended"]
    expected = expected_logprobs(1, expected_tokens(PROMPT, 30), 2)
    told = [call for call in asked.calls if call[0] == "logprobs"]
    assert [value for call in told for value in call[1]] == expected.sampled
    assert [value for call in told for value in call[2]] == expected.top_ids
    assert [value for call in told for value in call[3]] == expected.top


async def test_the_end_names_the_stop_id() -> None:
    tokens = expected_tokens(PROMPT, 30)
    async with connected(SimSettings(timing=FAST)) as link:
        stopped, ran = Ear(), Ear()
        link.submit(order(stop_ids=(tokens[7],)), stopped)
        link.submit(order(), ran)
        await stopped.done
        await ran.done
    assert stopped.calls[-1] == ("ended", Cause.STOP, tokens[7])
    assert ran.calls[-1] == ("ended", Cause.LENGTH, 0)


async def test_a_structural_tag_travels_to_the_replica() -> None:
    async with connected(SimSettings(timing=FAST)) as link:
        ear = Ear()
        link.submit(order(structural_tag="x" * 200_000), ear)
        await ear.done
    assert ear.calls == [("ended", Cause.REJECTED, 0)]


async def test_prompts_that_were_just_submitted_count_as_queued_until_their_first_token() -> None:
    async with connected(SimSettings(timing=FAST)) as link:
        ear = Ear()
        link.submit(order(prompt=range(1, 101)), ear)
        dropped = link.submit(order(prompt=range(1, 51)), Ear())
        assert link.queued_tokens == 150
        link.cancel(dropped)
        assert link.queued_tokens == 100
        await ear.done
        link.ping()  # the replica's own word may be of the step before
        await until(lambda: link.queued_tokens == 0)


async def test_the_pace_is_that_of_the_steps_and_idle_time_is_none_of_it() -> None:
    step = 0.004
    async with connected(SimSettings(timing=SimTiming(step_s=step, step_s_per_turn=0))) as link:
        assert link.pace == 0
        for _ in range(2):
            ear = Ear()
            link.submit(order(), ear)
            await ear.done
            assert step <= link.pace < 10 * step
            assert link._stepped is None


async def test_a_ping_that_was_answered_tells_the_round_trip() -> None:
    async with connected(SimSettings(timing=FAST)) as link:
        assert link.round_trip == 0
        link.ping()
        await until(lambda: link.round_trip > 0)
        assert link.round_trip < 5
