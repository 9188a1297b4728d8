"""F11 to F16: the store dies, lags, forks, freezes, forgets, and answers that nobody hears."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from services.api.headrace.v1 import sessions_pb2
from services.gateway.errors import EXIT_CONFIG
from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.checks import begin, check, ends, prompts, streams
from tests.faults.fault import Frozen, NotInjected, shows, state_of, under
from tests.faults.history import History
from tests.faults.table import Finding, note
from tests.faults.talk import running
from tests.faults.world import Gateway, World, environment, twins, world
from tests.support.proxy import Proxy, Way, running_proxy
from tests.support.valkey import Pair, Valkey, running_pair, running_valkey

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SESSIONS, TURNS, SHORT = 6, 6, 12
LONG, FORKED = 600, 900  # tokens


@dataclass(slots=True)
class Conversation:
    """A session's turns, one after the other, each asked to be durable."""

    session: str
    histories: list[History] = field(default_factory=list)

    async def go_on(self, caller: Caller, count: int, heard: asyncio.Queue[History]) -> None:
        """Up to so many turns; it ends with one that did not complete."""
        for i in range(len(self.histories), count):
            history = caller.history(f"turn {i}", key=f"{self.session} {i}", seconds=30)
            self.histories.append(history)
            await caller.run(history, session=self.session, durable=True, max_tokens=SHORT)
            heard.put_nowait(history)
            if not history.completed:
                return


async def conversations(caller: Caller, count: int) -> list[Conversation]:
    stub = caller.sessions()
    made = [
        await stub.Create(sessions_pb2.CreateSessionRequest(), metadata=caller.auth) for _ in range(count)
    ]
    return [Conversation(session.id) for session in made]


async def kept(caller: Caller, talks: list[Conversation], gateway: str) -> list[str]:
    """Every answer that the store has, with its session."""
    found = []
    for talk in talks:
        session = await caller.sessions(gateway).Get(
            sessions_pb2.GetSessionRequest(id=talk.session), metadata=caller.auth, timeout=10
        )
        found += [f"{talk.session}: {part.text}" for m in session.messages for part in m.content]
    return found


def acknowledged(talks: list[Conversation]) -> list[str]:
    return [f"{talk.session}: {h.text}" for talk in talks for h in talk.histories if h.acknowledged]


async def session_twins(caller: Caller) -> dict[str, str]:
    """The answers of a conversation that nothing happens to."""
    [talk] = await conversations(caller, 1)
    await talk.go_on(caller, TURNS, asyncio.Queue())
    assert all(history.completed for history in talk.histories), talk.histories[-1].attempts
    return {history.prompt: history.text for history in talk.histories}


@dataclass(slots=True)
class Promoted:
    """The primary is killed, its replica takes its place, and the links lead there."""

    pair: Pair
    links: list[Proxy]
    proof: str = "run id changed"
    _before: str = ""

    async def inject(self) -> None:
        self._before = self.pair.primary.info("server")["run_id"]
        self.pair.primary.process.kill()
        self.pair.replica.ask("REPLICAOF", "NO", "ONE")
        for link in self.links:
            turn_to(link, self.pair.replica)

    async def verify(self) -> None:
        await shows(lambda: state_of(self.pair.primary.process.pid) in ("", "Z"), "the primary lives")
        if self.pair.replica.info("replication")["role"] != "master":
            raise NotInjected("the replica was not promoted")
        if self.pair.replica.info("server")["run_id"] == self._before:
            raise NotInjected("it is the same server")

    async def heal(self) -> None:
        pass


@asynccontextmanager
async def paired() -> AsyncIterator[tuple[Pair, Proxy, World, Caller]]:
    """Two gateways on a pair, behind one link."""
    async with (
        running_pair() as pair,
        running_proxy("127.0.0.1", pair.primary.port) as link,
        world(redis_url=f"redis://127.0.0.1:{link.port}/0", gateways=2) as made,
    ):
        caller = await made.caller()
        for gateway in made.gateways:
            await made.connected(caller, gateway, 2)
        yield pair, link, made, caller


async def hear(heard: asyncio.Queue[History], count: int, acknowledged: bool) -> None:
    """Waits for so many turns that were told to be safe, or that were told not to be."""
    while count:
        history = await asyncio.wait_for(heard.get(), 30)
        count -= history.completed and history.acknowledged is acknowledged


async def test_acknowledged_turns_survive_the_death_of_the_primary() -> None:
    async with paired() as (pair, link, made, caller):
        answers = await twins(caller, caller.gateways[1], prompts(3), LONG)
        safe = await session_twins(caller)
        begun = await streams(caller, 3, LONG)
        talks, heard = await conversations(caller, SESSIONS), asyncio.Queue[History]()
        going = [asyncio.create_task(talk.go_on(caller, TURNS, heard)) for talk in talks]
        await hear(heard, 10, acknowledged=True)
        fault = Promoted(pair, [link])
        async with under(fault):
            histories = await ends(begun)
            await asyncio.gather(*going)
        said = [history for talk in talks for history in talk.histories]
        assert (
            promises.acknowledged_survive(acknowledged(talks), await kept(caller, talks, caller.gateways[1]))
            == []
        )
        assert promises.nothing_lost(said, safe) == [] and promises.one_ending(said) == []
        await check(made, histories, answers)
        figures = {"acknowledged": len(acknowledged(talks)), "of them lost": 0}
        note(Finding("F11", ("P1", "P2", "P3", "P4", "P7"), fault.proof, len(said) + len(histories), figures))


async def test_what_no_replica_has_is_not_acknowledged() -> None:
    async with paired() as (pair, link, _, caller):
        safe = await session_twins(caller)
        talks, heard = await conversations(caller, SESSIONS), asyncio.Queue[History]()
        going = [asyncio.create_task(talk.go_on(caller, TURNS, heard)) for talk in talks]
        await hear(heard, 8, acknowledged=True)
        pair.link.stall(Way.DOWN)
        await hear(heard, 6, acknowledged=False)
        status = pair.primary.info("replication")
        gap = status["master_repl_offset"] - status["slave0"]["offset"]
        if gap <= 0:
            raise NotInjected("the replica has everything")
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        fault = Promoted(pair, [link])
        async with under(fault):
            there = await kept(caller, talks, caller.gateways[1])
        said = [history for talk in talks for history in talk.histories if history.terminal]
        assert promises.acknowledged_survive(acknowledged(talks), there) == []
        assert promises.nothing_lost(said, safe) == []
        finished = [f"{talk.session}: {h.text}" for talk in talks for h in talk.histories if h.completed]
        lost = len(set(finished) - set(there))
        figures = {"acknowledged": len(acknowledged(talks)), "of them lost": 0, "unconfirmed and lost": lost}
        note(Finding("F12", ("P2", "P4"), "offset gap in INFO", len(said), figures))


async def test_a_forked_store_forks_no_turn() -> None:
    """One gateway stays with the old primary while the other one goes on with the new: it is taken for dead, and
    is fenced when it comes back."""
    async with forked() as (pair, left, right, made, stale, heir):
        caller = await made.caller(gateways=[stale.address, heir.address])
        for gateway in made.gateways:
            await made.connected(caller, gateway, 2)
        answers = await twins(caller, heir.address, prompts(4), FORKED)
        begun = await streams(caller, 4, FORKED)
        pair.replica.ask("REPLICAOF", "NO", "ONE")
        turn_to(right, pair.replica)
        if [one.info("replication")["role"] for one in (pair.primary, pair.replica)] != ["master", "master"]:
            raise NotInjected("there is one master only")
        others = await asyncio.gather(*(caller.read_again(history, heir.address) for history, _ in begun))
        turn_to(left, pair.replica)
        histories = await ends(begun)
        again = [await caller.read_again(history, stale.address) for history in histories]
        await check(made, [*histories, *others, *again], answers)
        assert {history.position for history in others} == {history.position for history in again}
        assert all(history.position.epoch == 1 for history in others)
        turns = len(histories) + len(others) + len(again)
        note(Finding("F13", ("P1", "P2", "P3", "P7"), "two masters in INFO", turns))


@asynccontextmanager
async def forked() -> AsyncIterator[tuple[Pair, Proxy, Proxy, World, Gateway, Gateway]]:
    """Two gateways, each with a link of its own to the primary."""
    async with (
        running_pair() as pair,
        running_proxy("127.0.0.1", pair.primary.port) as left,
        running_proxy("127.0.0.1", pair.primary.port) as right,
        world(redis_url=f"redis://127.0.0.1:{right.port}/0") as made,
    ):
        stale = await made.gateway(redis_url=f"redis://127.0.0.1:{left.port}/0")
        yield pair, left, right, made, stale, await made.gateway()


def turn_to(link: Proxy, server: Valkey) -> None:
    link.upstream = ("127.0.0.1", server.port)
    link.cut()


async def test_running_streams_do_not_notice_a_frozen_store_and_what_needs_it_is_refused_at_once() -> None:
    tokens = 1600
    with running_valkey() as valkey:
        async with world(redis_url=valkey.url, gateways=2) as made:
            caller = await made.caller()
            first, other = made.gateways
            for gateway in made.gateways:
                await made.connected(caller, gateway, 2)
            answers = await twins(caller, other.address, prompts(4), tokens)
            begun = await streams(caller, 4, tokens)
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
            await check(made, [*histories, *again], answers)
            figures = {"worst pause s": stall, "refusal after s": slowest, "tasks piled up": piled}
            note(Finding("F14", ("P1", "P2", "P3", "P7"), fault.proof, len(histories) + 41, figures))


async def refused(caller: Caller, i: int) -> tuple[Any, float]:
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
            answers = await twins(caller, other.address, prompts(4), LONG)
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
                await begun[0][0].tokens(300)
            follower = begin(caller, "turn 0", LONG, first=1)  # the same key, at the other gateway
            histories = await ends([*begun, follower])
            again = [await caller.read_again(history, other.address) for history in histories]
            await check(made, [*histories, *again], answers)
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


async def test_replies_that_are_lost_after_execution_leave_every_effect_once() -> None:
    cuts = 24
    with running_valkey() as valkey:
        async with running_proxy("127.0.0.1", valkey.port) as link, world(redis_url=valkey.url) as made:
            gateway = await made.gateway(redis_url=f"redis://127.0.0.1:{link.port}/0")
            caller = await made.caller()
            await made.connected(caller, gateway, 2)
            [calm, talk] = await conversations(caller, 2)
            before = link.passed(Way.DOWN)
            await calm.go_on(caller, 1, asyncio.Queue())
            width = link.passed(Way.DOWN) - before
            histories = []
            for i in range(cuts):
                history = caller.history("turn 0", key=f"cut {i}", seconds=20)
                done = link.cuts
                link.cut_after(width * i // cuts, Way.DOWN)
                await caller.run(history, session=talk.session, max_tokens=SHORT)
                await shows(lambda done=done: link.cuts > done, "no reply was lost")  # type: ignore[misc]
                link.heal()
                histories.append(history)
            session = await caller.sessions().Get(
                sessions_pb2.GetSessionRequest(id=talk.session), metadata=caller.auth
            )
            told = [part.text for message in session.messages for part in message.content]
            completed = [history.text for history in histories if history.completed]
            assert promises.one_ending(histories) == []
            assert promises.one_execution(histories, made.orders()) == []
            assert promises.acknowledged_survive(completed, told) == []
            assert all(told.count(text) == 1 for text in completed)
            assert len(completed) <= len(told) // 2 <= len(histories)
            assert await made.at_rest() == []
            figures = {"completed": len(completed), "told why not": len(histories) - len(completed)}
            note(Finding("F16", ("P1", "P3", "P7"), "cuts of the proxy", len(histories), figures))
            assert len(completed) > cuts / 2
