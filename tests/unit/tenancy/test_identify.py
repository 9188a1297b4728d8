"""Who is known, for how long, and what it costs the store. The store here fails when told to."""

import asyncio
import random
from dataclasses import replace

import pytest

from services.core.errors import StoreAway, Unauthenticated
from services.core.request import Tenant
from services.tenancy.identify import AWAY_SECONDS, FRESH_SECONDS, STALE_SECONDS, Keyring
from services.tenancy.keys import REFUSAL, KeyRecord, Minted, checksum, mint
from services.tenancy.memory import MemoryKeyStore
from tests.support.clock import FakeClock

PEPPER = b"pepper"


class FaultyStore(MemoryKeyStore):
    """Counts look-ups; is away when told to; answers only once `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.looked_up = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, id: str) -> KeyRecord | None:
        self.looked_up += 1
        await self.gate.wait()
        if self.away:
            raise StoreAway("away")
        return await super().get(id)


class World:
    def __init__(self) -> None:
        self.store, self.clock, self.rng = FaultyStore(), FakeClock(), random.Random(3)
        self.keyring = Keyring(self.store, PEPPER, self.clock, entries=50)

    async def key(self, **values: object) -> Minted:
        minted = self.stranger()
        minted = Minted(minted.text, replace(minted.record, **values))
        await self.store.put(minted.record)
        return minted

    def stranger(self) -> Minted:
        return mint("local", self.rng, tenant="acme", name="ci", pepper=PEPPER, now=0.0)

    async def identify(self, minted: Minted) -> Tenant:
        return await self.keyring.identify(f"Bearer {minted.text}")


@pytest.fixture
def world() -> World:
    return World()


async def test_a_known_key_names_its_tenant(world: World) -> None:
    key = await world.key()
    assert await world.identify(key) == Tenant("acme", key.record.id)
    assert await world.keyring.identify(f"bearer  {key.text} ") == Tenant("acme", key.record.id)


def resigned(text: str, old: str, new: str) -> str:
    body = text.rsplit("_", 1)[0].replace(old, new, 1)
    return f"{body}_{checksum(body)}"


async def test_every_refusal_has_one_text(world: World) -> None:
    good = await world.key()
    wrong_secret = resigned(good.text, good.text.split("_")[3], "0" * 43)
    other_env = resigned(good.text, "_local_", "_prod_")
    refused = [
        None,
        "",
        "Bearer",
        f"Basic {good.text}",
        good.text,
        f"Bearer {good.text}x",
        f"Bearer {wrong_secret}",
        f"Bearer {other_env}",
        f"Bearer {world.stranger().text}",
        f"Bearer {(await world.key(revoked=True)).text}",
        f"Bearer {(await world.key(expires=world.clock.now())).text}",
    ]
    for authorization in refused:
        with pytest.raises(Unauthenticated, match=f"^{REFUSAL}$"):
            await world.keyring.identify(authorization)


async def test_a_mistyped_key_costs_no_look_up(world: World) -> None:
    with pytest.raises(Unauthenticated):
        await world.keyring.identify(f"Bearer {world.stranger().text}x")
    assert world.store.looked_up == 0


async def test_a_revoked_key_stops_within_the_fresh_time(world: World) -> None:
    key = await world.key()
    await world.identify(key)
    await world.store.revoke(key.record.id)
    world.clock.advance(FRESH_SECONDS + 0.001)
    with pytest.raises(Unauthenticated):
        await world.identify(key)


async def test_a_key_expires_although_it_is_cached(world: World) -> None:
    key = await world.key(expires=world.clock.now() + 1)
    await world.identify(key)
    world.clock.advance(1.0)
    with pytest.raises(Unauthenticated):
        await world.identify(key)


async def test_a_cached_key_needs_its_secret_still(world: World) -> None:
    key = await world.key()
    await world.identify(key)
    with pytest.raises(Unauthenticated):
        await world.keyring.identify("Bearer " + resigned(key.text, key.text.split("_")[3], "0" * 43))


async def test_known_callers_are_served_while_the_store_is_away(world: World) -> None:
    key, late = await world.key(), await world.key()
    await world.identify(key)
    world.store.away = True
    world.clock.advance(STALE_SECONDS)
    assert await world.identify(key) == Tenant("acme", key.record.id)
    with pytest.raises(StoreAway):
        await world.identify(late)
    world.clock.advance(AWAY_SECONDS)
    with pytest.raises(StoreAway):
        await world.identify(key)
    world.store.away = False
    world.clock.advance(AWAY_SECONDS)
    assert await world.identify(late) == Tenant("acme", late.record.id)


async def test_a_key_known_as_revoked_is_refused_while_the_store_is_away(world: World) -> None:
    key = await world.key(revoked=True)
    with pytest.raises(Unauthenticated):
        await world.identify(key)
    world.store.away = True
    world.clock.advance(60.0)
    with pytest.raises(Unauthenticated):
        await world.identify(key)


async def test_a_store_that_is_away_is_asked_once_a_second(world: World) -> None:
    key = await world.key()
    await world.identify(key)
    world.store.away = True
    world.clock.advance(60.0)
    before = world.store.looked_up
    for _ in range(100):
        await world.identify(key)
        with pytest.raises(StoreAway):
            await world.identify(world.stranger())
    assert world.store.looked_up == before + 1


async def test_a_repeated_unknown_key_is_looked_up_once(world: World) -> None:
    stranger = world.stranger()
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await world.identify(stranger)
    assert world.store.looked_up == 1


async def test_a_flood_of_unknown_keys_stays_bounded_and_leaves_the_known(world: World) -> None:
    key = await world.key()
    await world.identify(key)
    for _ in range(500):
        with pytest.raises(Unauthenticated):
            await world.identify(world.stranger())
    assert len(world.keyring._cache) <= 51
    before = world.store.looked_up
    await world.identify(key)
    assert world.store.looked_up == before


async def test_concurrent_callers_of_one_key_share_a_look_up(world: World) -> None:
    key = await world.key()
    world.store.gate.clear()
    calls = [asyncio.ensure_future(world.identify(key)) for _ in range(20)]
    await asyncio.sleep(0)
    world.store.gate.set()
    assert set(await asyncio.gather(*calls)) == {Tenant("acme", key.record.id)}
    assert world.store.looked_up == 1


async def test_a_cancelled_look_up_is_taken_over(world: World) -> None:
    key = await world.key()
    world.store.gate.clear()
    first, second = (asyncio.ensure_future(world.identify(key)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    world.store.gate.set()
    assert await second == Tenant("acme", key.record.id)
    assert world.store.looked_up == 2
