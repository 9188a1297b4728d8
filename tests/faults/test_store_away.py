"""F14, F15, F16: the store freezes, forgets, is full, and answers that nobody hears."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from services.api.headrace.v1 import inference_pb2
from services.gateway.errors import EXIT_CONFIG
from services.sessions.writing import LEASE
from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.checks import LONG, SHORT, begin, check, ends, prompts, streams
from tests.faults.fault import Frozen, NotInjected, shows, under
from tests.faults.history import Attempt, History
from tests.faults.sessions import answers, conversations
from tests.faults.table import Finding, note
from tests.faults.talk import running
from tests.faults.world import Gateway, World, environment, twins, world
from tests.support.proxy import Proxy, Way, running_proxy
from tests.support.valkey import Valkey, running_valkey

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

FROZEN = 1600  # tokens: 13 s
CUTS = 24
QUEUE = inference_pb2.SESSION_BUSY_QUEUE


async def test_running_streams_do_not_notice_a_frozen_store_and_what_needs_it_is_refused_at_once() -> None:
    with running_valkey() as valkey:
        async with world(redis_url=valkey.url, gateways=2) as made:
            caller = await made.caller()
            first, other = made.gateways
            for gateway in made.gateways:
                await made.connected(caller, gateway, 2)
            twin = await twins(caller, other.address, prompts(4), FROZEN)
            begun = await streams(caller, 4, FROZEN)
            fault = Frozen(valkey.process.pid)
            tasks = (await first.ledger())["tasks"]
            async with under(fault) as moment:
                refusals = await asyncio.gather(*(refused(caller, i) for i in range(40)))
                piled = (await first.ledger())["tasks"] - tasks
                plain = await caller.run(caller.history("turn 0"), max_tokens=5)
                await begun[0][0].until(lambda h: h.events[-1].at > moment + 10)
            histories = await ends(begun)
            assert plain.completed and not plain.events[0].resumable
            assert {attempt.status for attempt, _ in refusals} == {"UNAVAILABLE"}
            assert all(attempt.refused for attempt, _ in refusals)
            slowest = max(seconds for _, seconds in refusals)
            assert slowest < 1.5 and piled < 20
            stall = max(worst_pause(history, moment, moment + 10) for history in histories)
            assert stall < 1
            again = [await caller.read_again(history, other.address) for history in histories]
            await check(made, [*histories, *again], twin)
            figures = {"worst pause s": stall, "refusal after s": slowest, "tasks piled up": piled}
            note(Finding("F14", ("P1", "P2", "P3", "P7"), fault.proof, len(histories) + 41, figures))


async def refused(caller: Caller, i: int) -> tuple[Attempt, float]:
    """One try of what must not run without the store."""
    history = caller.history("turn 0", key=f"refused {i}")
    await caller.run(history, patient=False, max_tokens=5)
    [attempt] = history.attempts
    return attempt, attempt.ended - attempt.at


def worst_pause(history: History, begin: float, end: float) -> float:
    times = [event.at for event in history.events if begin <= event.at <= end]
    return max((b - a for a, b in pairwise(times)), default=0.0)


def calls(valkey: Valkey, command: str) -> int:
    return int(valkey.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


@dataclass(slots=True)
class ScriptsGone:
    valkey: Valkey
    proof: str = "no cached script in INFO"

    async def inject(self) -> None:
        self.valkey.ask("SCRIPT", "FLUSH")

    async def verify(self) -> None:
        if not calls(self.valkey, "script|flush"):
            raise NotInjected("the scripts are there")

    async def heal(self) -> None:
        pass


@dataclass(slots=True)
class Emptied:
    valkey: Valkey
    made: World
    proof: str = "FLUSHALL in INFO"

    async def inject(self) -> None:
        self.valkey.ask("FLUSHALL")

    async def verify(self) -> None:
        if not calls(self.valkey, "flushall"):
            raise NotInjected("nothing was deleted")
        await self.made.restore_keys()

    async def heal(self) -> None:
        pass


@dataclass(slots=True)
class MemoryFull:
    valkey: Valkey
    proof: str = "OOM errors in INFO"

    async def inject(self) -> None:
        self.valkey.ask("CONFIG", "SET", "maxmemory", "1")

    async def verify(self) -> None:
        await shows(lambda: "errorstat_OOM" in self.valkey.info("errorstats"), "no write was refused")

    async def heal(self) -> None:
        self.valkey.ask("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize("kind", ["scripts gone", "emptied", "memory full"])
async def test_a_store_that_forgets_or_refuses_costs_no_token_and_runs_nothing_twice(kind: str) -> None:
    with running_valkey() as valkey:
        async with world(redis_url=valkey.url, gateways=2) as made:
            caller = await made.caller()
            other = made.gateways[1]
            for gateway in made.gateways:
                await made.connected(caller, gateway, 2)
            twin = await twins(caller, other.address, prompts(4), LONG)
            begun = await streams(caller, 4, LONG)
            fault = {
                "scripts gone": ScriptsGone(valkey),
                "emptied": Emptied(valkey, made),
                "memory full": MemoryFull(valkey),
            }[kind]
            turned = 0
            async with under(fault):
                if kind == "memory full":
                    attempt, _ = await refused(caller, 0)
                    assert attempt.status == "UNAVAILABLE" and attempt.refused
                    turned = 1
                await begun[0][0].tokens(200)
            follower = begin(caller, "turn 0", LONG, first=1)  # the same key, at the other gateway
            histories = await ends([*begun, follower])
            again = [await caller.read_again(history, other.address) for history in histories]
            await check(made, [*histories, *again], twin)
            turns = len(histories) + turned
            note(Finding("F15", ("P1", "P2", "P3", "P7"), fault.proof, turns))


async def test_a_store_that_evicts_is_refused_at_start() -> None:
    with running_valkey("--maxmemory-policy", "allkeys-lru") as valkey:
        async with world(replicas=0) as made:
            log = made.folder / "refused.log"
            async with running(
                "services.gateway.worker", "1", env=environment(valkey.url), log=log
            ) as process:
                assert await process.process.wait() == EXIT_CONFIG
            assert "noeviction" in log.read_text()
            note(Finding("F15", ("P3",), "policy in CONFIG", 0))


@asynccontextmanager
async def cuttable() -> AsyncIterator[tuple[Proxy, World, Gateway, Caller]]:
    """A gateway whose way to the store can be cut, and who calls it."""
    with running_valkey() as valkey:
        async with running_proxy("127.0.0.1", valkey.port) as link, world(redis_url=valkey.url) as made:
            gateway = await made.gateway(redis_url=f"redis://127.0.0.1:{link.port}/0")
            caller = await made.caller()
            await made.connected(caller, gateway, 2)
            yield link, made, gateway, caller


async def test_replies_that_are_lost_after_execution_leave_every_effect_once() -> None:
    async with cuttable() as (link, made, _, caller):
        for talk in await conversations(caller, 2):  # the first one brings the store its scripts
            before = link.passed(Way.DOWN)
            await caller.run(caller.history("turn 0"), session=talk.session, max_tokens=SHORT)
            width = link.passed(Way.DOWN) - before
        histories, following = [], []
        for i, talk in enumerate(await conversations(caller, CUTS)):
            history = caller.history("turn 0", key=f"cut {i}", seconds=20)
            done = link.cuts
            link.cut_after(width * i // CUTS, Way.DOWN)
            await caller.run(history, session=talk.session, max_tokens=SHORT)
            await shows(lambda done=done: link.cuts > done, "no reply was lost")  # type: ignore[misc]
            link.heal()
            after = caller.history("turn 1", seconds=LEASE / 3)  # soon, whatever became of the hold
            await caller.run(after, session=talk.session, max_tokens=SHORT, session_busy=QUEUE)
            told = await answers(caller, talk.session)
            completed = [each.text for each in (history, after) if each.completed]
            assert promises.acknowledged_survive(completed, told) == []
            assert len(told) // 2 <= 2, "an effect happened twice"
            histories.append(history)
            following.append(after)
        assert promises.one_ending(histories) == []
        assert promises.one_execution(histories, made.orders()) == []
        assert all(after.completed for after in following), promises.tally(following)
        assert await made.at_rest() == []
        figures = promises.tally(histories)
        note(Finding("F16", ("P1", "P3", "P7"), "cuts of the proxy", len(histories), figures))
        assert figures["completed"] > CUTS / 2, figures


CALLS = (
    "services.journal.redis:RedisJournalStore.claimed",
    "services.journal.redis:RedisJournalStore.create",
    "services.journal.redis:RedisJournalStore.append",
    "services.journal.redis:RedisJournalStore.confirm",
    "services.sessions.redis:RedisSessionStore.append",
)


async def test_the_lost_reply_of_any_call_of_a_turn_leaves_its_effect_once() -> None:
    async with cuttable() as (link, made, gateway, caller):
        [talk] = await conversations(caller, 1)
        histories = []
        for i, call in enumerate(CALLS):
            history = caller.history(f"turn {i}", key=f"lost {i}", seconds=20)
            histories.append(history)
            await gateway.process.ask(f"hold {call}")
            work = caller.run(history, session=talk.session, durable=True, max_tokens=SHORT)
            turn = asyncio.create_task(work)
            await gateway.process.hear("held", after=len(gateway.process.said) - 1)
            done = link.cuts
            link.cut_after(0, Way.DOWN)
            gateway.process.tell("go")
            await turn
            await shows(lambda done=done: link.cuts > done, "no reply was lost")  # type: ignore[misc]
            link.heal()
        told = await answers(caller, talk.session)
        assert promises.one_ending(histories) == []
        assert promises.one_execution(histories, made.orders()) == []
        assert all(history.completed for history in histories), promises.tally(histories)
        assert told[1::2] == [history.text for history in histories]
        assert await made.at_rest() == []
        note(Finding("F16", ("P1", "P3", "P7"), "cuts of the proxy", len(histories)))


async def test_a_release_that_never_reached_the_store_does_not_close_the_session() -> None:
    async with cuttable() as (link, _, gateway, caller):
        [talk] = await conversations(caller, 1)
        await gateway.process.ask("hold services.sessions.redis:RedisSessionStore.release")
        first = caller.history("turn 0")
        turn = asyncio.create_task(caller.run(first, session=talk.session, max_tokens=SHORT))
        await gateway.process.hear("held")
        await turn
        link.refuse()
        link.cut()
        tried = link.accepted
        gateway.process.tell("go")
        await shows(lambda: link.accepted > tried, "nothing was lost")
        link.heal()
        after = caller.history("turn 1", seconds=LEASE / 3)
        await caller.run(after, session=talk.session, max_tokens=SHORT, session_busy=QUEUE)
        assert first.completed and after.completed, (first.attempts, after.attempts)
        assert (await answers(caller, talk.session))[1::2] == [first.text, after.text]
        note(Finding("F16", ("P1", "P3"), "cuts of the proxy", 2))
