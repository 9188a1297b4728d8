"""Addresses of stores, as the gateway and the replicas read them."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import RedisCluster

from cluster.serving.lease import open_redis
from services.store.address import Mode, Place, StoreAddress, parse

ONE, SENTINELS, CLUSTER = Mode.ONE, Mode.SENTINEL, Mode.CLUSTER
THREE = (Place("a", 1), Place("b", 26379), Place("::1", 3))
TABLE = {
    "redis://h": StoreAddress(ONE, (Place("h", 6379),)),
    "redis://h/?db=3": StoreAddress(ONE, (Place("h", 6379),), db=3),
    "redis://u%40x:p%3Aw@h:1/2?protocol=2": StoreAddress(
        ONE, (Place("h", 1),), db=2, username="u@x", password="p:w", protocol=2
    ),
    "redis://:pw@127.0.0.1:6380/0": StoreAddress(ONE, (Place("127.0.0.1", 6380),), password="pw"),
    "rediss://h:1?ssl_check_hostname=no": StoreAddress(ONE, (Place("h", 1),), tls={"ssl_check_hostname": False}),
    "unix:///run/redis.sock?db=1": StoreAddress(ONE, path="/run/redis.sock", db=1),
    "redis+sentinel://u:p@a:1,b,[::1]:3/main/2?sentinel_username=s&sentinel_password=t": StoreAddress(
        SENTINELS, THREE, name="main", db=2, username="u", password="p", sentinel_username="s",
        sentinel_password="t",
    ),
    "rediss+sentinel://a:1,b,[::1]:3/main": StoreAddress(
        SENTINELS, THREE, name="main", tls={"ssl_check_hostname": True}
    ),
    "redis+cluster://u:p@a:1,b:26379,[::1]:3": StoreAddress(CLUSTER, THREE, username="u", password="p"),
    "rediss+cluster://h": StoreAddress(CLUSTER, (Place("h", 6379),), tls={"ssl_check_hostname": True}),
}  # fmt: skip


@pytest.mark.parametrize("url", TABLE)
def test_an_address_is_read(url: str) -> None:
    assert parse(url) == TABLE[url]


def _as_the_replica_reads(url: str) -> dict[str, Any]:
    client: Any = open_redis(url)
    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        (first, *_), places = nodes, {(node.host, node.port) for node in nodes}
        known = {"places": places, "tls": "SSL" in str(first.connection_class), "retry": client.retry}
        return dict(first.connection_kwargs) | known
    pool = client.connection_pool
    kwargs = dict(pool.connection_kwargs)
    if sentinels := getattr(pool, "sentinel_manager", None):
        asked = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels.sentinels]
        places = {(one["host"], one["port"]) for one in asked}
        kwargs |= {"sentinel_username": asked[0]["username"], "sentinel_password": asked[0]["password"]}
        kwargs |= {"name": pool.service_name}
    else:
        places = {(kwargs.get("host"), kwargs.get("port", 6379))} if "path" not in kwargs else set()
    return kwargs | {"places": places, "tls": "SSL" in str(pool.connection_class)}


@pytest.mark.parametrize("url", TABLE)
async def test_the_replicas_read_an_address_as_the_gateway_does(url: str) -> None:
    ours, theirs = parse(url), _as_the_replica_reads(url)
    assert theirs["places"] == set(ours.places)
    assert theirs["tls"] == (ours.tls is not None)
    assert int(theirs.get("db") or 0) == ours.db
    for name in ("username", "password", "protocol", "sentinel_username", "sentinel_password"):
        assert theirs.get(name) == getattr(ours, name)
    assert (theirs.get("path") or "", theirs.get("name") or "") == (ours.path, ours.name)
    assert theirs["retry"].get_retries() == 0 and theirs["socket_timeout"] == 0.5


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "begins with"),
        ("http://h", "begins with"),
        ("redis://", "needs a host"),
        ("redis://a,b", "sentinels or a cluster"),
        ("redis://h:99999", "port"),
        ("redis://h:x", "port"),
        ("redis+cluster://h,[::1:3", "a bracket without the other"),
        ("redis://h/two", "database is a number"),
        ("redis://h?protocol=4", "protocol is 2 or 3"),
        ("redis://h?socket_timeout=9", "no option socket_timeout"),
        ("redis://h?ssl_ca_certs=x", "rediss"),
        ("rediss://h?ssl_ca_certs=/does/not/exist", "ssl_ca_certs names no file"),
        ("rediss://h?ssl_certfile={here}", "go together"),
        ("redis://h?sentinel_username=x", "sentinels"),
        ("redis+sentinel://h", "name of the master"),
        ("redis+cluster://h/1", "database 0 only"),
    ],
)
def test_a_wrong_address_says_what_is_wrong_and_keeps_its_password(url: str, what: str) -> None:
    secret = url.format(here=Path(__file__)).replace("://", "://u:hunter2@")
    with pytest.raises(ValueError, match=what) as refusal:
        parse(secret)
    assert "hunter2" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_password_is_not_printed() -> None:
    address = parse("redis+sentinel://u:hunter2@h/main?sentinel_password=hunter3")
    assert "hunter" not in repr(address) + str(address)
