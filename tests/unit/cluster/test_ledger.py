"""The autoscaler's thread and a real Valkey."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from cluster.serving.ledger import CHANGES, FORGET_S, Ledger
from cluster.serving.names import decision_key, held_key, log_key
from tests.support.clock import FakeClock
from tests.support.gateway import until
from tests.support.valkey import acl_rule, free_port, running_valkey

MODEL = "org/model"


@contextmanager
def ledger(url: str, clock: FakeClock | None = None) -> Iterator[Ledger]:
    made = Ledger(MODEL, url, (clock.monotonic if clock else time.monotonic), time.time)
    made.start()
    try:
        yield made
    finally:
        made.close()
        made.join()


def word(held: int, refused: int = 0, at: float | None = None) -> str:
    at_ms = round((time.time() if at is None else at) * 1000)
    return json.dumps({"held": held, "refused": refused, "at_ms": at_ms})


@pytest.fixture(scope="module")
def valkey() -> Iterator[tuple[str, Any]]:
    with running_valkey() as running:
        url = f"redis://127.0.0.1:{running.port}/0"
        with Redis.from_url(url) as client:
            yield url, client


@pytest.fixture
def store(valkey: tuple[str, Any]) -> tuple[str, Any]:
    valkey[1].flushall()
    return valkey


async def test_held_and_refused_turns_of_all_gateways_are_one_number(store: tuple[str, Any]) -> None:
    url, client = store
    client.hset(held_key(MODEL), mapping={"g1": word(3, 1), "g2": word(2), "junk": "{"})
    with ledger(url) as made:
        await until(lambda: made.held == 6)


async def test_words_that_are_none_are_passed_over(store: tuple[str, Any]) -> None:
    url, client = store
    bad = ('{"at_ms": null, "held": 1}', '{"held": "x"}', '{"held": NaN}', "[1]", '{"held": 1e400}', "\xff")
    client.set(decision_key(MODEL), '{"at_ms": null}')
    client.hset(held_key(MODEL), mapping={"g1": word(3)} | {f"bad {n}": text for n, text in enumerate(bad)})
    client.hset(held_key(MODEL), b"\xff", b"\xff")
    with ledger(url) as made:
        await until(lambda: made.held == 3)
        assert made.kept() is None


async def test_a_gateway_whose_clock_is_wrong_is_heard(store: tuple[str, Any]) -> None:
    url, client = store
    with ledger(url) as made:
        for second in range(3):
            client.hset(held_key(MODEL), "behind", word(4, at=time.time() - 7000 + second))
            before = made._answered
            await until(lambda before=before: made._answered > before)  # type: ignore[misc]
        assert made.held == 4


async def test_the_rule_that_operators_are_given_is_enough(store: tuple[str, Any]) -> None:
    url, client = store
    client.execute_command(*acl_rule("replica"))
    client.hset(held_key(MODEL), mapping={"g1": word(1), "old": word(1, at=time.time() - 90_000)})
    client.hset("headrace:session", mapping={"g": "1"})
    with ledger(url.replace("redis://", "redis://replica:SECRET@")) as made:
        made.tell({"desired": 2}, {"desired": 2})
        await until(lambda: client.llen(log_key(MODEL)) == 1 and client.get(decision_key(MODEL)) is not None)
        assert made.held == 1
    client.acl_deluser("replica")


async def test_without_gateways_nothing_is_held_and_without_redis_that_is_not_known(
    store: tuple[str, Any],
) -> None:
    with ledger(store[0]) as made:
        await until(lambda: made.held == 0)
    with ledger(f"redis://127.0.0.1:{free_port()}/0") as made:
        made.tell({"desired": 1}, None)
        assert made.held is None and not made.opened.wait(0.7)


async def test_a_gateway_that_is_gone_holds_nothing(store: tuple[str, Any]) -> None:
    url, client = store
    clock = FakeClock()
    client.hset(held_key(MODEL), mapping={"dead": word(9, at=time.time() - 300), "lives": word(1)})
    with ledger(url, clock) as made:
        await until(lambda: made.held == 1)
        clock.advance(2.9)
        client.hset(held_key(MODEL), "lives", word(2))
        await until(lambda: made.held == 2)
        for _ in range(3):  # Redis answers, the gateway says nothing new
            before = made._answered
            clock.advance(2)
            await until(lambda before=before: made._answered > before)  # type: ignore[misc]
        assert made.held == 0


async def test_fields_of_gateways_long_gone_are_removed(store: tuple[str, Any]) -> None:
    url, client = store
    clock = FakeClock()
    client.hset(held_key(MODEL), mapping={"long ago": word(9), "junk": "{", "lives": word(1)})
    with ledger(url, clock) as made:
        await until(lambda: made.held == 10)
        clock.advance(FORGET_S + 1)
        client.hset(held_key(MODEL), "lives", word(2))
        await until(lambda: client.hkeys(held_key(MODEL)) == [b"lives"])


async def test_a_decision_and_its_changes_are_written_newest_first(store: tuple[str, Any]) -> None:
    url, client = store
    with ledger(url) as made:
        for i in range(CHANGES + 5):
            made.tell({"desired": i}, {"after": i})
        await until(lambda: client.llen(log_key(MODEL)) == CHANGES)
        assert json.loads(client.get(decision_key(MODEL))) == {"desired": CHANGES + 4}
        assert 0 < client.ttl(decision_key(MODEL)) <= 60
        newest, *_, oldest = (json.loads(each)["after"] for each in client.lrange(log_key(MODEL), 0, -1))
        assert (newest, oldest) == (CHANGES + 4, 5)


async def test_the_decision_before_this_autoscaler_is_known_to_it(store: tuple[str, Any]) -> None:
    url, client = store
    client.set(decision_key(MODEL), json.dumps({"at_ms": time.time() * 1000, "memory": {"a": 1}}))
    with ledger(url) as made:
        await until(made.opened.is_set)
        assert (made.kept() or {})["memory"] == {"a": 1}
    client.set(decision_key(MODEL), json.dumps({"at_ms": 0, "memory": {"a": 1}}))
    with ledger(url) as made:
        await until(made.opened.is_set)
        assert made.kept() is None


async def test_changes_that_redis_missed_are_written_when_it_is_back() -> None:
    with running_valkey() as first:
        url = f"redis://127.0.0.1:{first.port}/0"
        with ledger(url) as made:
            await until(lambda: made.held == 0)
            first.freeze()
            made.tell({"desired": 2}, {"after": 2})
            await until(lambda: made.held is None, timeout=15)
            first.thaw()
            await until(lambda: made.held == 0, timeout=15)
            with Redis.from_url(url) as client:
                await until(lambda: client.llen(log_key(MODEL)) == 1)
