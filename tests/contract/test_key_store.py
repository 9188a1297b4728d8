"""The KeyStore contract, on every adapter."""

from dataclasses import replace

from services.core.request import Scope
from services.tenancy.keys import KeyRecord
from tests.contract.stores import Stores

KEY = KeyRecord("aaaaaaaa", "ab" * 32, "acme", "CI ü: x=1", "local", created=1.25)


async def test_a_record_is_read_back_whole(stores: Stores) -> None:
    scoped = replace(KEY, id="c", scopes=frozenset(Scope))
    for record in (KEY, replace(KEY, id="b", revoked=True, expires=1_800_000_000.123456), scoped):
        await stores.keys.put(record)
        assert await stores.keys.get(record.id) == record


async def test_an_unknown_key_is_none(stores: Stores) -> None:
    assert await stores.keys.get("nobody") is None
    assert await stores.keys.list() == ()


async def test_a_second_put_replaces(stores: Stores) -> None:
    await stores.keys.put(replace(KEY, expires=9.0))
    await stores.keys.put(KEY)
    assert await stores.keys.list() == (KEY,)


async def test_the_list_is_oldest_first_and_can_be_one_tenants(stores: Stores) -> None:
    young, other = (
        replace(KEY, id="young", created=9.0),
        replace(KEY, id="other", tenant="rival", created=5.0),
    )
    for record in (young, other, KEY):
        await stores.keys.put(record)
    assert await stores.keys.list() == (KEY, other, young)
    assert await stores.keys.list("acme") == (KEY, young)
    assert await stores.keys.list("nobody") == ()


async def test_a_revoked_key_stays_listed_as_revoked(stores: Stores) -> None:
    await stores.keys.put(KEY)
    assert await stores.keys.revoke(KEY.id)
    assert await stores.keys.revoke(KEY.id)
    assert await stores.keys.list() == (replace(KEY, revoked=True),)


async def test_revoking_an_unknown_key_makes_none(stores: Stores) -> None:
    assert not await stores.keys.revoke("nobody")
    assert await stores.keys.get("nobody") is None
    assert await stores.keys.list() == ()
