"""What is left of a session in Redis, where values are encrypted: nothing that anybody can read without its key."""

import pytest
from redis.asyncio import Redis

from services.core.errors import Internal, NotFound
from services.core.request import Message, Role, ToolCall
from services.sessions import codec
from services.sessions.port import Summary
from services.sessions.redis import RedisSessionStore, _keys
from services.sessions.vault import Seal, Vault
from services.store.cipher import AesGcm, Unreadable
from tests.contract.stores import MASTER, redis_stores
from tests.support.clock import CountingIds, FakeClock

CANARY = "canary-4711"
CALLING = Message(Role.ASSISTANT, CANARY, CANARY, (ToolCall("call_1", "f", CANARY),))
HELLO = Message(Role.USER, f"hello {CANARY}")
TTL = 3600.0


async def everything(client: Redis) -> dict[bytes, list[bytes]]:
    """Every value of every key, as the server has it."""
    readers = {
        b"string": lambda key: client.mget(key),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": lambda key: client.hgetall(key),
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    found: dict[bytes, list[bytes]] = {}
    async for key in client.scan_iter():
        value = await readers[await client.type(key)](key)
        found[key] = [*value, *value.values()] if isinstance(value, dict) else value
    return found


def holds(found: dict[bytes, list[bytes]], text: str) -> bool:
    return any(text.encode() in value for key, values in found.items() for value in (key, *values))


async def full(client: Redis, master: bytes) -> tuple[RedisSessionStore, str]:
    """A session with the canary in all that a caller or a model writes, and a fork of it."""
    sessions = redis_stores(client, master=master).sessions
    assert isinstance(sessions, RedisSessionStore)
    id = (await sessions.create("acme", (HELLO,), TTL, metadata={"note": CANARY})).id
    await sessions.append("acme", id, 1, (HELLO, CALLING), operation="turn_1", model="m")
    await sessions.summarize("acme", id, Summary(2, f"sum {CANARY}"))
    await sessions.fork("acme", id)
    return sessions, id


async def test_no_content_can_be_read_in_the_store(valkey_client: Redis) -> None:
    sessions, id = await full(valkey_client, MASTER)
    assert not holds(await everything(valkey_client), CANARY)
    session = await sessions.get("acme", id)
    assert session.messages == (HELLO, HELLO, CALLING) and session.metadata == {"note": CANARY}
    assert session.summary == Summary(2, f"sum {CANARY}")


async def test_without_a_master_key_content_is_plain(valkey_client: Redis) -> None:
    """Shows that the search of the test above finds what is there."""
    await full(valkey_client, b"")
    assert holds(await everything(valkey_client), CANARY)


async def test_what_was_copied_before_a_delete_cannot_be_read_after_it(valkey_client: Redis) -> None:
    sessions, id = await full(valkey_client, MASTER)
    keys = _keys("acme", id)
    copies = {key: await valkey_client.dump(key) for key in keys if await valkey_client.exists(key)}
    wrapped = await valkey_client.get(keys.key)
    raw = await valkey_client.lrange(keys.messages, 0, -1)
    key_copy = copies.pop(keys.key)
    await sessions.delete("acme", id)
    assert not await valkey_client.exists(*keys)
    for key, copy in copies.items():
        await valkey_client.restore(key, 60_000, copy)
    for call in (sessions.get("acme", id), sessions.read("acme", id), sessions.fork("acme", id)):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(Unreadable):
        codec.unpack(raw, 0, Seal(AesGcm(MASTER), "acme", id))
    # Only the key that was destroyed opens them: with it back, they can be read.
    await valkey_client.restore(keys.key, 60_000, key_copy)
    assert wrapped and (await sessions.get("acme", id)).messages == (HELLO, HELLO, CALLING)


async def test_a_delete_destroys_the_key_before_anything_else(valkey_client: Redis) -> None:
    sessions, id = await full(valkey_client, MASTER)
    async with valkey_client.monitor() as monitor:
        await sessions.delete("acme", id)
        commands = []
        while not any(command.startswith("EXEC") for command in commands):
            commands.append((await monitor.next_command())["command"])
    writes = [command for command in commands if command.startswith(("DEL", "UNLINK"))]
    assert writes[0] == f"DEL {_keys('acme', id).key}"


async def test_a_session_has_its_own_key_and_a_fork_another(valkey_client: Redis) -> None:
    await full(valkey_client, MASTER)
    found = await everything(valkey_client)
    wrapped = [value for key, [value, *_] in found.items() if key.endswith(b":key")]
    assert len(set(wrapped)) == len(wrapped) == 2


async def test_values_are_bound_to_tenant_session_and_position(valkey_client: Redis) -> None:
    sessions, id = await full(valkey_client, MASTER)
    keys = _keys("acme", id)
    first, second, _ = await valkey_client.lrange(keys.messages, 0, -1)
    await valkey_client.lset(keys.messages, 0, second)
    await valkey_client.lset(keys.messages, 1, first)
    with pytest.raises(Unreadable):
        await sessions.get("acme", id)
    theirs = await sessions.create("rival", (HELLO,), TTL)
    for name in ("head", "messages", "turns", "key"):
        copy = await valkey_client.dump(getattr(keys, name))
        await valkey_client.restore(getattr(_keys("rival", theirs.id), name), 60_000, copy, replace=True)
    with pytest.raises(Unreadable):
        await sessions.get("rival", theirs.id)


async def test_a_gateway_with_another_master_key_or_none_reads_and_writes_nothing(
    valkey_client: Redis,
) -> None:
    _, id = await full(valkey_client, MASTER)
    for master in (b"x" * 32, b""):
        other = redis_stores(valkey_client, master=master).sessions
        for call in (other.get("acme", id), other.append("acme", id, 2, (HELLO,)), other.fork("acme", id)):
            with pytest.raises(Internal) as refusal:
                await call
            assert CANARY not in str(refusal.value)
    assert not holds(await everything(valkey_client), CANARY)


async def test_a_session_from_before_the_master_key_stays_plain_and_goes_on(valkey_client: Redis) -> None:
    _, id = await full(valkey_client, b"")
    sealing = redis_stores(valkey_client, master=MASTER).sessions
    assert await sealing.append("acme", id, 2, (HELLO,), operation="turn_2") == 3
    assert (await sealing.get("acme", id)).messages == (HELLO, HELLO, CALLING, HELLO)
    assert (await redis_stores(valkey_client).sessions.get("acme", id)).version == 3


async def test_an_append_for_another_position_than_the_lists_end_is_refused(valkey_client: Redis) -> None:
    """The count that positions are made from is read before the script runs; here it changes in between."""
    sessions, id = await full(valkey_client, MASTER)
    late = LateCount(valkey_client, FakeClock(), CountingIds(), Vault(MASTER))
    with pytest.raises(Exception, match="changed by another turn"):
        await late.append("acme", id, 2, (HELLO,))
    assert (await sessions.get("acme", id)).messages == (HELLO, HELLO, CALLING)


class LateCount(RedisSessionStore):
    """Reads a count that is out of date."""

    async def _seal(self, tenant: str, id: str) -> tuple[Seal, int, int]:
        seal, sealed, count = await super()._seal(tenant, id)
        return seal, sealed, count - 1


async def test_sealed_sessions_leave_no_key_without_an_end(valkey_client: Redis) -> None:
    sessions, id = await full(valkey_client, MASTER)
    await sessions.acquire("acme", id, "turn_a", 9.0)
    await sessions.acquire("acme", id, "turn_b", 9.0, wait=True)
    ends = {key: await valkey_client.pttl(key) async for key in valkey_client.scan_iter()}
    assert len(ends) == 6 + 5 + 3 + 2  # session, its fork (no operations), writer and waiting, index
    assert all(0 < end <= TTL * 1000 + 1000 for end in ends.values())
