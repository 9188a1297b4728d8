"""Turns that a gateway cannot go on with: one of them must not end it, nor the next gateway."""

import asyncio
import base64
from dataclasses import replace

import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.events import Started
from services.core.request import Ask, Message, Role, Tenant
from services.gateway.app import Stores, ciphers
from services.gateway.asked import Asked, Life, pack
from services.gateway.takeover import AT_ONCE
from services.gateway.worker import hand_over
from services.journal import codec
from services.journal.memory_store import MemoryJournalStore
from services.journal.port import Batch, Record, Stored
from services.journal.redis import RedisJournalStore
from services.store.cipher import Plain
from services.store.connect import Store
from tests.support.gateway import MODEL, ask, memory_stores, settings, until
from tests.support.gateways import LEASE, Gateway, running_gateways
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401

DEAD = "gateway_dead"
GOOD, BAD = "turn_" + "1" * 32, "turn_" + "2" * 32


def packed(**fields: object) -> bytes:
    said = Ask(MODEL, (Message(Role.USER, "hello"),))
    return pack(Asked(Tenant("acme", "key"), ask(max_tokens=900, **fields), said, Life(30.0)), None, 0.0)


async def left_behind(stores: Stores, turn: str, request: bytes, seconds: float = 60.0) -> None:
    await stores.journals.create(Record(turn, "acme", DEAD, 0, request, seconds, 60.0))
    await stores.journals.beat(DEAD, 0.001)


async def until_looked(gateway: Gateway) -> None:
    looks = gateway.takeover._looks
    await until(lambda: gateway.takeover._looks >= looks + 3)


async def takes_the_good_one_only(gateway: Gateway) -> None:
    turns = gateway.endpoint.deps.turns
    await until(lambda: turns.runs(GOOD))
    await until_looked(gateway)
    assert not turns.runs(BAD)


@pytest.mark.parametrize(
    "request_",
    [b"\xc1", b"", packed().replace(b"hello", b"\xff\xff\xff\xff\xff"), packed(n=99), packed(model="gone")],
    ids=["no record", "nothing", "no request", "more than is allowed here", "a model that is not here"],
)
async def test_a_record_that_says_nothing_here_is_left_to_others(request_: bytes) -> None:
    stores = memory_stores()
    await left_behind(stores, BAD, request_)
    await left_behind(stores, GOOD, packed())
    async with running_gateways(1, stores) as [one]:
        await takes_the_good_one_only(one)


async def test_a_turn_that_nobody_can_serve_ends_with_its_deadline() -> None:
    stores = memory_stores()
    await left_behind(stores, BAD, packed(model="gone"), seconds=1.5)
    async with running_gateways(1, stores) as [one]:
        await one.until_it_judges()
        request = pb.GetTurnRequest(turn=BAD)
        async with asyncio.timeout(10):
            while (
                turn := await one.endpoint.inference.GetTurn(request, metadata=one.endpoint.auth)
            ).seq == 0:
                await asyncio.sleep(0.02)
        assert (turn.state, turn.error.outcome) == (pb.Turn.FAILED, "DEADLINE")


async def test_a_journal_with_events_of_a_later_version_is_left_to_others() -> None:
    stores = memory_stores()
    assert isinstance(stores.journals, MemoryJournalStore)
    for turn in (BAD, GOOD):
        await left_behind(stores, turn, packed())
        await stores.journals.append([Batch(turn, "acme", 0, 1, [Started(turn, MODEL, 3)], False, 60.0)])
    stores.journals._turns[BAD].pages.append((0, 2, b"\x91\x91\x63"))  # an event of kind 99
    with pytest.raises(ValueError, match="journal"):
        codec.decode(b"\x91\x91\x63")
    async with running_gateways(1, stores) as [one]:
        await takes_the_good_one_only(one)
        stored = await stores.journals.find(BAD)
        assert stored is not None and stored.record.gateway == DEAD  # nobody's turn was taken


async def test_turns_from_before_the_master_key_are_left_to_gateways_without(
    valkey_client: Store,  # noqa: F811
) -> None:
    sealing = settings(master_key=base64.b64encode(bytes(32)).decode())
    plain = RedisJournalStore(valkey_client, lambda tenant, turn: Plain())
    sealed = RedisJournalStore(valkey_client, ciphers(sealing))
    await left_behind(replace(memory_stores(), journals=plain), BAD, packed())
    await left_behind(replace(memory_stores(), journals=sealed), GOOD, packed())
    async with running_gateways(1, replace(memory_stores(), journals=sealed)) as [one]:
        await takes_the_good_one_only(one)


class Slow(MemoryJournalStore):
    """A turn takes half a lease to find, as one of very many would."""

    def __init__(self, stores: Stores) -> None:
        assert isinstance(stores.journals, MemoryJournalStore)
        super().__init__(stores.journals._clock)
        self.lapses = 0
        self.me = ""

    async def beat(self, gateway: str, seconds: float) -> None:
        if gateway != DEAD:
            self.me = gateway
        await super().beat(gateway, seconds)

    async def find(self, turn: str) -> Stored | None:
        ends = self._now + LEASE / 2
        await until(lambda: self._now >= ends)
        self.lapses += self.me in await self.lapsed()
        return await super().find(turn)


async def test_a_gateway_that_takes_very_many_turns_over_goes_on_saying_that_it_lives() -> None:
    stores = memory_stores()
    slow = Slow(stores)
    stores = replace(stores, journals=slow)
    for i in range(3 * AT_ONCE):
        await left_behind(stores, f"turn_{i:032x}", packed())
    async with running_gateways(1, stores) as [one]:
        await until(lambda: len(one.endpoint.deps.turns) == 3 * AT_ONCE)
        assert slow.lapses == 0


async def test_a_gateway_that_shuts_down_amid_very_many_turns_leaves_the_rest() -> None:
    slow = Slow(memory_stores())
    stores = replace(memory_stores(), journals=slow)
    for i in range(3 * AT_ONCE):
        await left_behind(stores, f"turn_{i:032x}", packed())
    async with running_gateways(1, stores) as [one]:
        deps = one.endpoint.deps
        await until(lambda: len(deps.turns) > 0)
        deps.admission.close()
        await hand_over(deps, one.takeover)
        await until(lambda: "takeover" not in {task.get_name() for task in deps.tasks._running})
        assert deps.name in await slow.lapsed()  # it did not say again that it lives
        assert await slow.orphans(DEAD)
