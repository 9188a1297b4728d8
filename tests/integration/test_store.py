"""The store's client against real servers that freeze, fill up, fail over, forget their scripts."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from cluster.engine.health import SystemClock as EngineClock
from cluster.serving.lease import Lease, LeaseRecord, open_redis
from services.backend.redis import RedisLeases
from services.core.errors import StoreAway
from services.core.request import Message, Role
from services.store.breaker import FAILURES, PROBE, State
from services.store.check import check
from services.store.confirm import confirmed, confirmed_script
from services.store.connect import Store, connect, store_errors
from services.store.node import Node
from tests.contract.stores import redis_stores
from tests.support.certificates import self_signed
from tests.support.gateway import until
from tests.support.proxy import Way, running_proxy
from tests.support.valkey import Valkey, acl_rule, running_pair, running_sentinels, running_valkey

BUDGET = 0.25
SLACK = 1.0  # seconds that this machine may add to a budget
HELLO = Message(Role.USER, "hello")


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Any]:
    client: Store = connect(url, **{"timeout": BUDGET, **options})
    try:
        yield client
    finally:
        await client.aclose()


async def translated(call: Awaitable[Any]) -> Any:
    async with store_errors():
        return await call


async def ends(call: Awaitable[Any]) -> tuple[float, bool]:
    """How long a call took, and whether it was answered."""
    begin = time.monotonic()
    try:
        await translated(call)
    except StoreAway:
        return time.monotonic() - begin, False
    return time.monotonic() - begin, True


async def open_breaker(client: Node) -> None:
    await asyncio.gather(*(ends(client.get("x")) for _ in range(FAILURES)))
    assert client.breaker.state is State.OPEN


async def test_a_frozen_store_costs_a_budget_and_then_nothing() -> None:
    heard: list[tuple[str, State]] = []
    with running_valkey() as server:
        async with connected(server.url, on_state=lambda *change: heard.append(change)) as client:
            assert await client.set("x", "1")
            server.freeze()
            took = await asyncio.gather(*(ends(client.get("x")) for _ in range(500)))
            assert max(seconds for seconds, _ in took) < BUDGET + SLACK
            assert not any(answered for _, answered in took)
            tasks = len(asyncio.all_tasks())
            begin = time.monotonic()
            refused = [await ends(client.get("x")) for _ in range(1000)]
            # All but the probes end at once.
            assert sorted(seconds for seconds, _ in refused)[-20] < BUDGET / 2
            assert time.monotonic() - begin < 2 + SLACK
            assert len(asyncio.all_tasks()) == tasks
            server.thaw()
            await asyncio.wait_for(_answered(client), PROBE + BUDGET + SLACK)
    name = f"127.0.0.1:{server.port}"
    assert heard == [(name, State.OPEN), (name, State.CLOSED)]


async def _answered(client: Any) -> None:
    while True:
        try:
            await translated(client.get("x"))
            return
        except StoreAway:
            await asyncio.sleep(0.01)


async def test_two_thousand_cancels_cross_no_replies_and_leak_no_connections() -> None:
    rng = random.Random(7)
    with running_valkey() as server:
        async with connected(server.url, timeout=10.0) as client:
            names = [f"name-{n}" for n in range(200)]
            await client.mset({name: name for name in names})
            cancelled = answered = 0
            while cancelled < 2000:
                reads = {name: asyncio.ensure_future(client.get(name)) for name in names}
                for name in rng.sample(names, 180):
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    reads[name].cancel()
                replies = await asyncio.gather(*reads.values(), return_exceptions=True)
                for name, reply in zip(names, replies, strict=True):
                    cancelled += isinstance(reply, asyncio.CancelledError)
                    if not isinstance(reply, asyncio.CancelledError):
                        assert reply == name.encode()
                        answered += 1
            assert answered >= 200
            pool = client.connection_pool
            assert not pool._in_use_connections and len(pool._available_connections) <= 64
            assert await client.get("name-7") == b"name-7"


async def test_a_forgotten_script_is_sent_once_and_runs_once() -> None:
    with running_valkey() as server:
        async with connected(server.url) as client:
            script = client.register_script("return redis.call('INCR', KEYS[1])")
            assert await script(keys=["n"]) == 1
            server.ask("SCRIPT", "FLUSH")
            server.ask("CONFIG", "RESETSTAT")
            assert await script(keys=["n"]) == 2
            calls = server.info("commandstats")
            assert (calls["cmdstat_evalsha"]["calls"], calls["cmdstat_eval"]["calls"]) == (1, 1)
            assert "cmdstat_script|load" not in calls
            server.ask("SCRIPT", "FLUSH")
            assert (await confirmed_script(client, script, ["n"], [], replicas=0)).reply == 3


async def test_a_full_store_refuses_writes_by_name_and_goes_on_reading() -> None:
    with running_valkey() as server:
        async with connected(server.url) as client:
            stores = redis_stores(client)
            made = await stores.sessions.create("acme", (HELLO,), 60.0)
            server.ask("CONFIG", "SET", "maxmemory", "1")
            for _ in range(FAILURES + 1):
                with pytest.raises(StoreAway):
                    await stores.sessions.append("acme", made.id, 1, (HELLO,))
            assert (await stores.sessions.get("acme", made.id)).messages == (HELLO,)
            assert client.breaker.state is State.CLOSED


async def test_nothing_is_sent_twice_when_its_reply_is_lost() -> None:
    with running_valkey() as server:
        async with (
            running_proxy("127.0.0.1", server.port) as proxy,
            connected(f"redis://127.0.0.1:{proxy.port}?protocol=2") as client,
        ):
            for number, call in enumerate((client.incr, lambda key: client.pipeline().incr(key).execute())):
                await client.get("x")
                proxy.cut_after(0, Way.DOWN)
                with pytest.raises(StoreAway):
                    await translated(call(f"n{number}"))
                assert (proxy.cuts, server.ask("GET", f"n{number}")) == (number + 1, "1")


async def test_a_dead_connection_is_replaced_before_the_next_command() -> None:
    with running_valkey() as server:
        async with connected(server.url) as client:
            await client.set("x", "1")
            (idle,) = client.connection_pool._available_connections
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(idle._reader.at_eof)
            assert await client.get("x") == b"1"


async def test_a_master_that_became_a_replica_is_left_by_every_connection() -> None:
    """An address that leads to the new master, as a name or a virtual address does; no sentinel tells of it."""
    with running_valkey() as old, running_valkey() as new:
        async with (
            running_proxy("127.0.0.1", old.port) as address,
            connected(f"redis://127.0.0.1:{address.port}", timeout=2.0) as client,
        ):
            await asyncio.gather(*(client.set("x", "1") for _ in range(20)))
            old.ask("REPLICAOF", "127.0.0.1", new.port)
            address.upstream = ("127.0.0.1", new.port)
            for refused in (client.set("x", "2"), client.pipeline().set("x", "2").execute()):
                with pytest.raises(StoreAway):
                    await translated(refused)
                await asyncio.gather(*(client.set("x", "3") for _ in range(20)))
                assert new.ask("GET", "x") == "3"
                new, old = old, new
                new.ask("REPLICAOF", "NO", "ONE")
                old.ask("REPLICAOF", "127.0.0.1", new.port)
                address.upstream = ("127.0.0.1", new.port)
            assert client.breaker.state is State.CLOSED


async def test_a_refused_pipeline_does_not_repeat_what_it_carried() -> None:
    with running_valkey() as server:
        async with connected(server.url) as client:
            await client.set("text", "x")
            server.ask("CONFIG", "SET", "maxmemory", "1")
            for transaction in (True, False):
                for verb in ("rpush", "hset"):
                    pipe = client.pipeline(transaction=transaction)
                    pipe.get("text")
                    pipe.execute_command(verb, "text", "canary", "canary")
                    with pytest.raises(ResponseError) as refusal:
                        await pipe.execute()
                    assert "canary" not in f"{refusal.value!r} {refusal.value}"


async def test_a_write_is_confirmed_once_a_replica_has_it() -> None:
    async with running_pair() as pair, connected(pair.primary.url) as client:
        assert await confirmed(client, "SET", "x", "1") == (True, True)
        script = client.register_script("return redis.call('INCR', KEYS[1])")
        assert await confirmed_script(client, script, ["n"], []) == (1, True)
        assert pair.replica.ask("GET", "n") == "1"
        assert await confirmed(client, "SET", "x", "1", replicas=2) == (True, False)
        pair.link.stall()
        sent = pair.link.passed(Way.DOWN)
        seconds, _ = await ends(unkept(client))
        assert 0.1 <= seconds < BUDGET
        assert pair.link.passed(Way.DOWN) == sent and pair.replica.ask("GET", "x") == "1"
        pair.link.flow()
        await until(lambda: pair.replica.ask("GET", "x") == "2")
        assert (await confirmed(client, "SET", "x", "3")).kept


async def unkept(client: Any) -> None:
    assert await confirmed(client, "SET", "x", "2", seconds=0.1) == (True, False)


async def test_a_one_way_stall_of_replication_is_not_taken_for_health() -> None:
    """Heartbeats still arrive: only WAIT, which compares offsets, sees that the writes do not."""
    async with running_pair() as pair, connected(pair.primary.url) as client:
        assert (await confirmed(client, "SET", "x", "1")).kept
        pair.link.stall(Way.DOWN)
        assert not (await confirmed(client, "SET", "x", "2")).kept
        assert pair.primary.info("replication")["slave0"]["state"] == "online"


async def test_a_refused_write_is_raised_and_not_confirmed() -> None:
    async with running_pair() as pair, connected(pair.primary.url) as client:
        await client.set("text", "x")
        with pytest.raises(Exception, match="WRONGTYPE"):
            await confirmed(client, "SADD", "text", "y")


async def test_a_failover_is_followed_through_the_sentinels() -> None:
    async with (
        running_pair(through_link=False) as pair,
        running_sentinels(pair.primary) as group,
        connected(group.url) as client,
    ):
        stores = redis_stores(client)
        made = await stores.sessions.create("acme", (HELLO,), 60.0)
        assert (await confirmed(client, "SET", "x", "before")).kept
        await asyncio.gather(*(client.get("x") for _ in range(20)))
        pair.primary.stop()
        await _every_call_is_short_until_it_is_answered(client)
        assert await stores.sessions.get("acme", made.id) == made
        assert await stores.sessions.append("acme", made.id, 1, (HELLO,)) == 2
        assert [session.id for session in (await stores.sessions.list("acme")).sessions] == [made.id]
        assert await client.get("x") == b"before"
        assert group.master_port() == pair.replica.port
        assert {c.port for c in client.connection_pool._available_connections} >= {pair.replica.port}


async def test_a_master_that_freezes_and_comes_back_is_not_written_to() -> None:
    async with (
        running_pair(through_link=False) as pair,
        running_sentinels(pair.primary) as group,
        connected(group.url) as client,
    ):
        await asyncio.gather(*(client.set("x", "before") for _ in range(20)))
        pair.primary.freeze()
        await _every_call_is_short_until_it_is_answered(client)
        pair.primary.thaw()
        written = await asyncio.gather(*(ends(client.set("x", "after")) for _ in range(64)))
        assert any(answered for _, answered in written)
        assert pair.replica.ask("GET", "x") == "after"
        assert pair.replica.info("replication")["role"] == "master"


async def _every_call_is_short_until_it_is_answered(client: Any) -> None:
    async with asyncio.timeout(15):
        while True:
            seconds, answered = await ends(client.set("x", "before"))
            assert seconds < BUDGET + SLACK
            if answered:
                return
            await asyncio.sleep(0.02)


async def test_frozen_sentinels_do_not_delay_the_one_that_answers() -> None:
    async with (
        running_pair(through_link=False) as pair,
        running_sentinels(pair.primary) as group,
    ):
        for sentinel in group.sentinels[:2]:
            sentinel.freeze()
        async with connected(group.url) as client:
            assert await client.set("x", "1")


async def test_a_sentinel_that_names_a_replica_is_not_believed() -> None:
    with running_valkey() as master, running_valkey("--replicaof", f"127.0.0.1 {master.port}") as replica:
        async with running_late_sentinel(replica) as url, connected(url, timeout=2.0) as client:
            with pytest.raises(StoreAway) as away:
                await translated(client.get("x"))
            assert "no master" in str(away.value.__cause__)
        async with running_late_sentinel(master) as url, connected(url, timeout=2.0) as client:
            assert await client.get("x") is None


@asynccontextmanager
async def running_late_sentinel(named: Valkey) -> AsyncIterator[str]:
    """Answers as a sentinel does and names always the same server."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(4096):
            port = str(named.port)
            address = f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode()
            writer.write(address if b"get-master-addr-by-name" in asked.lower() else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"redis+sentinel://127.0.0.1:{server.sockets[0].getsockname()[1]}/headrace?protocol=2"
    finally:
        server.close()
        await server.wait_closed()


async def test_tls_asks_for_the_right_authority_and_shows_a_certificate(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    files = f"ssl_ca_certs={certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
    with running_valkey() as server:
        async with running_proxy("127.0.0.1", server.port, tls=tls) as proxy:
            at = f"rediss://127.0.0.1:{proxy.port}"
            async with connected(f"{at}?{files}", timeout=2.0) as client:
                assert await client.set("x", "1")
            for short in (at, f"{at}?ssl_ca_certs={certificate}"):
                async with connected(short) as client:
                    with pytest.raises(StoreAway):
                        await translated(client.set("x", "2"))
            assert proxy.accepted == 1 and server.ask("GET", "x") == "1"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_store_that_could_evict_is_refused(policy: str) -> None:
    with running_valkey("--maxmemory-policy", policy) as server:
        async with connected(server.url) as client:
            with pytest.raises(ValueError, match=f"evicts keys .*{policy}.* set it to noeviction"):
                await check(client)


async def test_a_user_who_may_not_ask_is_told_which_permission_is_missing() -> None:
    with running_valkey() as server:
        server.ask("ACL", "SETUSER", "gateway", "on", ">pw", "~*", "+@all", "-info")
        async with connected(f"redis://gateway:pw@127.0.0.1:{server.port}") as client:
            with pytest.raises(ValueError, match=r"grant \+info"):
                await check(client)


async def test_a_wrong_password_is_store_away() -> None:
    with running_valkey("--requirepass", "right") as server:
        async with connected(f"redis://:wrong@127.0.0.1:{server.port}") as client:
            with pytest.raises(StoreAway):
                await check(client)


async def test_the_users_of_the_readme_can_do_their_work_and_no_more() -> None:
    with running_valkey() as server:
        for user in ("gateway", "replica"):
            server.ask(*acl_rule(user))
        replica: Any = open_redis(f"redis://replica:SECRET@127.0.0.1:{server.port}")
        record = LeaseRecord("r-1", "127.0.0.1:1", "m", "", 1, 1, "sim", 1)
        lease = Lease(replica, record, ttl_ms=3000, renew_ms=1000, clock=EngineClock())
        assert await lease.renew()
        async with connected(f"redis://gateway:SECRET@127.0.0.1:{server.port}/1") as client:
            assert await client.ping()
        async with connected(f"redis://gateway:SECRET@127.0.0.1:{server.port}") as client:
            await check(client)
            assert [found.replica for found in await RedisLeases(client, print).read()] == ["r-1"]
            assert await confirmed(client, "SET", "headrace:x", "1") == (True, False)
            stranger = (
                client.get("x"),
                client.keys("*"),
                client.flushall(),
                client.config_set("maxmemory", "1"),
            )
            for call in (*stranger, client.acl_list(), client.script_flush(), replica.get("headrace:x")):
                with pytest.raises(NoPermissionError):
                    await call
        await lease.release()
        assert server.ask("SMEMBERS", "headrace:replicas") == set()
        await replica.aclose()
