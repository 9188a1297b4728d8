"""F11, F12, F13: the store's primary dies, lags behind, and comes back as a second one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.faults import promises
from tests.faults.caller import Caller
from tests.faults.checks import check, ends, prompts, streams
from tests.faults.fault import NotInjected, shows, state_of, under
from tests.faults.history import History
from tests.faults.sessions import TURNS, acknowledged, conversations, kept, session_twins
from tests.faults.table import Finding, note
from tests.faults.world import Gateway, World, twins, world
from tests.support.proxy import Proxy, Way, running_proxy
from tests.support.valkey import Pair, Valkey, running_pair

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SESSIONS = 6
FORKED = 1200  # tokens


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
        answers = await twins(caller, caller.gateways[1], prompts(3), FORKED)
        safe = await session_twins(caller)
        begun = await streams(caller, 3, FORKED)
        talks, heard = await conversations(caller, SESSIONS), asyncio.Queue[History]()
        going = [asyncio.create_task(talk.go_on(caller, TURNS, heard)) for talk in talks]
        await hear(heard, 10, acknowledged=True)
        fault = Promoted(pair, [link])
        async with under(fault):
            histories = await ends(begun)
            await asyncio.gather(*going)
        said = [history for talk in talks for history in talk.histories]
        there = await kept(caller, talks, caller.gateways[1])
        assert promises.acknowledged_survive(acknowledged(talks), there) == []
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
        others = [caller.history(history.prompt, history.key) for history, _ in begun]
        reading = [
            asyncio.create_task(caller.read_again(history, heir.address, other))
            for (history, _), other in zip(begun, others, strict=True)
        ]
        await asyncio.gather(*(other.until(lambda h: h.position.epoch > 0) for other in others))
        if any(history.terminal for history, _ in begun):
            raise NotInjected("the stale gateway has nothing more to write")
        turn_to(left, pair.replica)
        histories = await ends(begun)
        await asyncio.gather(*reading)
        again = [await caller.read_again(history, stale.address) for history in histories]
        await check(made, [*histories, *others, *again], answers)
        assert {h.position for h in others} == {h.position for h in again} == {h.position for h in histories}
        assert all(history.position.epoch > 0 for history in others)
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
