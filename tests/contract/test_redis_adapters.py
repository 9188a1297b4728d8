"""What only the Redis adapters promise: keys, faults, repeats."""

import asyncio
import json
import random

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.crc import key_slot

from services.backend.redis import RedisLeases
from services.core.errors import Conflict, Internal, StoreAway
from services.core.request import Message, Role
from services.sessions.redis import RedisSessionStore, _index, _keys
from services.store.connect import AWAY, connect, store_errors
from services.tenancy.redis import RedisKeyStore
from tests.contract.stores import redis_stores
from tests.support.clock import CountingIds, FakeClock
from tests.support.valkey import free_port, running_valkey

HELLO = Message(Role.USER, "hello")
# Replies that mean a mistake of ours, and what a caller of this library must handle itself.
OURS = {
    "RedisError",
    "ResponseError",
    "InvalidResponse",
    "DataError",
    "PubSubError",
    "WatchError",
    "NoScriptError",
    "ExecAbortError",
    "ModuleError",
    "NoSuchFieldsetError",
    "LockError",
    "LockNotOwnedError",
    "ChildDeadlockedError",
    "AuthenticationWrongNumberOfArgsError",
    "CrossSlotTransactionError",
    "InvalidPipelineStack",
    "ClusterCrossSlotError",
    "IncorrectPolicyType",
}


def test_every_error_of_the_library_has_a_meaning() -> None:
    known = [e for e in vars(exceptions).values() if isinstance(e, type) and issubclass(e, Exception)]
    here = [e for e in known if e.__module__ == exceptions.__name__]
    assert {e.__name__ for e in here if not issubclass(e, AWAY)} <= OURS


async def test_a_server_that_is_not_there_is_store_away() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreAway):
        await RedisKeyStore(client).get("x")
    with pytest.raises(StoreAway):
        await RedisSessionStore(client, FakeClock(), CountingIds()).create("acme", (), 60.0)
    await client.aclose()


async def test_a_server_that_dies_is_store_away() -> None:
    with running_valkey() as server:
        stores = redis_stores(client := connect(server.url, timeout=2.0))
        made = await stores.sessions.create("acme", (HELLO,), 60.0)
        server.stop()
        assert server.process.poll() is not None
        for call in (stores.sessions.get("acme", made.id), stores.keys.list()):
            with pytest.raises(StoreAway):
                await call
        await client.aclose()


async def test_a_full_server_is_store_away(valkey_client: Redis) -> None:
    stores = redis_stores(valkey_client)
    await valkey_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreAway):
            await stores.sessions.create("acme", (HELLO,), 60.0)
    finally:
        await valkey_client.config_set("maxmemory", "0")


async def test_a_wrong_type_is_not_taken_for_an_outage(valkey_client: Redis) -> None:
    await valkey_client.set("text", "x")
    with pytest.raises(Internal) as fault:
        async with store_errors():
            await valkey_client.hgetall("text")
    assert "WRONGTYPE" in fault.value.message and fault.value.__suppress_context__


async def test_an_outage_is_known_inside_a_pipeline_too(valkey_client: Redis) -> None:
    stores = redis_stores(valkey_client)
    made = await stores.sessions.create("acme", (HELLO,), 60.0)
    await valkey_client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(StoreAway):
            await stores.sessions.delete("acme", made.id)
        with pytest.raises(StoreAway):
            await stores.sessions.create("acme", (HELLO,), 60.0)
    finally:
        await valkey_client.config_set("min-replicas-to-write", "0")


async def test_an_append_survives_a_script_flush(valkey_client: Redis) -> None:
    stores = redis_stores(valkey_client)
    made = await stores.sessions.create("acme", (), 60.0)
    await valkey_client.script_flush()
    assert await stores.sessions.append("acme", made.id, 1, (HELLO,)) == 2


async def test_an_append_whose_reply_was_lost_is_repeated_without_effect(valkey_url: str) -> None:
    """Injection: a proxy passes everything on and swallows the reply of the first script call."""
    upstream_port = int(valkey_url.rsplit(":", 1)[1].split("/")[0])
    lost: list[bytes] = []

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream_port)
        try:
            while request := await reader.read(65536):
                up_writer.write(request)
                reply = await up_reader.read(65536)
                if b"turn_1" in request and reply.startswith(b"*4") and not lost:
                    lost.append(reply)
                    return
                writer.write(reply)
        finally:
            up_writer.close()
            writer.close()

    proxy = await asyncio.start_server(link, "127.0.0.1", 0)
    client = connect(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/0?protocol=2", timeout=2.0)
    sessions = RedisSessionStore(client, FakeClock(), CountingIds())
    made = await sessions.create("acme", (), 60.0)
    with pytest.raises(StoreAway):
        await sessions.append("acme", made.id, 1, (HELLO,), operation="turn_1")
    assert lost
    assert await sessions.append("acme", made.id, 1, (HELLO,), operation="turn_1") == 2
    with pytest.raises(Conflict):
        await sessions.append("acme", made.id, 1, (HELLO,), operation="turn_2")
    assert (await sessions.get("acme", made.id)).messages == (HELLO,)
    await client.aclose()
    proxy.close()
    await proxy.wait_closed()


async def test_a_cancellation_storm_crosses_no_replies(valkey_url: str) -> None:
    """15 rounds of 12 reads, half of them cancelled at random instants: each reply is the asker's own."""
    client, rng = connect(valkey_url, timeout=2.0), random.Random(7)
    names = [f"name-{n}" for n in range(12)]
    await client.mset({name: name for name in names})
    answered = 0
    for _ in range(15):
        reads = {name: asyncio.ensure_future(client.get(name)) for name in names}
        for name in rng.sample(names, 6):
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            reads[name].cancel()
        replies = await asyncio.gather(*reads.values(), return_exceptions=True)
        for name, reply in zip(names, replies, strict=True):
            if not isinstance(reply, asyncio.CancelledError):
                assert reply == name.encode()
                answered += 1
    assert answered >= 15 * 6
    await client.aclose()


def test_the_keys_of_a_session_share_a_slot_and_name_their_tenant() -> None:
    for keys in (_keys("acme", "session_" + "0" * 32), _index("acme")):
        assert len({key_slot(key.encode()) for key in keys}) == 1
        assert all("acme" in key for key in keys)


async def test_nothing_is_kept_without_an_end(valkey_client: Redis) -> None:
    stores = redis_stores(valkey_client)
    made = await stores.sessions.create("acme", (), 60.0)
    await stores.sessions.append("acme", made.id, 1, (HELLO,))
    ends = [await valkey_client.pttl(key) async for key in valkey_client.scan_iter()]
    assert len(ends) == 5
    assert all(0 < end <= 61_000 for end in ends)


async def test_the_index_forgets_what_expired(valkey_client: Redis) -> None:
    stores = redis_stores(valkey_client)
    for _ in range(150):
        await stores.sessions.create("acme", (), 60.0)
    await stores.sessions.create("acme", (), 3600.0)
    await stores.pass_time(61.0)
    for _ in range(2):
        await stores.sessions.create("acme", (), 3600.0)
    assert [await valkey_client.zcard(key) for key in _index("acme")] == [3, 3]


async def test_a_lease_that_cannot_be_read_does_not_hide_the_others(valkey_client: Redis) -> None:
    fields = {
        "replica": "good", "address": "127.0.0.1:1", "model": "m", "revision": "", "epoch": 1,
        "capacity": 1, "engine": "sim", "context_length": 1, "field_of_tomorrow": 1,
    }  # fmt: skip
    odd = {"torn": b"{", "short": b"{}", "list": b"[]", "good": json.dumps(fields).encode()}
    for name, value in odd.items():
        await valkey_client.set(f"headrace:lease:{name}", value)
        await valkey_client.sadd("headrace:replicas", name)
    unreadable: list[str] = []
    leases = await RedisLeases(valkey_client, unreadable.append).read()
    assert [lease.replica for lease in leases] == ["good"] and sorted(unreadable) == ["list", "short", "torn"]
