"""The SessionStore contract on turns: parts, forks, summaries, and one writer at a time, on every adapter."""

import pytest

from services.core.errors import Conflict, Full, InvalidRequest, NotFound
from services.core.request import Message, Role
from services.sessions import port
from services.sessions.port import SessionTurn, Summary
from tests.contract.stores import Stores

HELLO, ANSWER = Message(Role.USER, "héllo"), Message(Role.ASSISTANT, "hi")
TTL = 3600.0
UNKNOWN = "session_" + "f" * 32
SAID = [(Message(Role.USER, f"ask {n}"), Message(Role.ASSISTANT, f"say {n}")) for n in range(5)]


async def talked(stores: Stores, turns: int = 3, **fields: dict[str, str]) -> str:
    """A session that begins with a message and has so many turns after it."""
    id = (await stores.sessions.create("acme", (HELLO,), TTL, **fields)).id
    for n in range(turns):
        stores.clock.advance(1.0)
        await stores.sessions.append("acme", id, n + 1, SAID[n], operation=f"turn_{n}", model='m\n"é')
    return id


async def test_metadata_comes_back_with_the_session_and_in_the_list(stores: Stores) -> None:
    pairs = {"user.id": "ü\n \x00", "a-b_c": ""}
    made = await stores.sessions.create("acme", (), TTL, metadata=pairs)
    assert made.metadata == pairs
    assert (await stores.sessions.get("acme", made.id)) == made
    assert [each.metadata for each in (await stores.sessions.list("acme")).sessions] == [pairs]


async def test_a_session_tells_which_turn_made_which_messages(stores: Stores) -> None:
    id = await talked(stores, 2)
    session, now = await stores.sessions.get("acme", id), stores.clock.now()
    sizes = [port.total_bytes(said) for said in SAID[:2]]
    assert session.turns == (
        SessionTurn("", 1, now - 2, 0, 1, HELLO.size),
        SessionTurn("turn_0", 2, now - 1, 1, 2, sizes[0], 'm\n"é'),
        SessionTurn("turn_1", 3, now, 3, 2, sizes[1], 'm\n"é'),
    )


async def test_a_long_session_is_read_in_parts_that_make_the_whole(stores: Stores) -> None:
    third = Message(Role.USER, "x" * (port.PART_BYTES // 3))
    whole = Message(Role.USER, "y" * (port.PART_BYTES + 1))
    id = (await stores.sessions.create("acme", (), TTL)).id
    for version, said in enumerate([third, third, third, HELLO, third, whole, HELLO], 1):
        await stores.sessions.append("acme", id, version, (said,))
    parts = [await stores.sessions.read("acme", id)]
    while following := parts[-1].next_version:
        parts.append(await stores.sessions.read("acme", id, following))
    assert [[turn.version for turn in part.session.turns] for part in parts] == [
        [1, 2, 3, 4],
        [5, 6],
        [7],
        [8],
    ]
    session = await stores.sessions.get("acme", id)
    assert sum((part.session.messages for part in parts), ()) == session.messages
    assert sum((part.session.turns for part in parts), ()) == session.turns
    assert {part.session.version for part in parts} == {8}


async def test_a_part_begins_and_ends_where_it_is_asked_to(stores: Stores) -> None:
    id = await talked(stores, 4)
    part = await stores.sessions.read("acme", id, 3, 2)
    assert (part.session.messages, part.next_version) == (SAID[1] + SAID[2], 5)
    last = await stores.sessions.read("acme", id, 5, 1)
    assert (last.session.messages, last.next_version) == (SAID[3], 0)


async def test_an_empty_session_is_one_part(stores: Stores) -> None:
    id = (await stores.sessions.create("acme", (), TTL)).id
    part = await stores.sessions.read("acme", id)
    assert (part.session.messages, len(part.session.turns), part.next_version) == ((), 1, 0)


@pytest.mark.parametrize(("version", "turns"), [(-1, 0), (4, 0), (2**63 - 1, 0), (0, -1), (0, 1001)])
async def test_a_part_that_cannot_be_is_refused(stores: Stores, version: int, turns: int) -> None:
    id = await talked(stores, 2)
    with pytest.raises(InvalidRequest):
        await stores.sessions.read("acme", id, version, turns)


async def test_a_fork_has_the_history_up_to_its_version_and_goes_its_own_way(stores: Stores) -> None:
    id = await talked(stores, 3, metadata={"k": "v"})
    stores.clock.advance(10.0)
    source = await stores.sessions.get("acme", id)
    fork = await stores.sessions.fork("acme", id, 2)
    assert fork == await stores.sessions.get("acme", fork.id)
    assert (fork.version, fork.messages, fork.turns) == (2, (HELLO, *SAID[0]), source.turns[:2])
    assert (fork.metadata, fork.forked_from, fork.forked_at) == ({"k": "v"}, id, 2)
    assert (fork.created, fork.expires) == (stores.clock.now(), stores.clock.now() + TTL)
    assert await stores.sessions.append("acme", fork.id, 2, SAID[4], operation="turn_1") == 3
    assert (await stores.sessions.get("acme", fork.id)).messages == (HELLO, *SAID[0], *SAID[4])
    assert await stores.sessions.get("acme", id) == source
    await stores.sessions.delete("acme", id)
    assert (await stores.sessions.get("acme", fork.id)).version == 3


async def test_a_fork_of_the_newest_and_of_a_fork_are_forks(stores: Stores) -> None:
    id = await talked(stores, 2)
    fork = await stores.sessions.fork("acme", id)
    again = await stores.sessions.fork("acme", fork.id, 1)
    assert (fork.version, fork.forked_at, again.messages, again.forked_from) == (3, 3, (HELLO,), fork.id)
    assert {s.id for s in (await stores.sessions.list("acme")).sessions} == {id, fork.id, again.id}
    assert fork.turns[-1].id == "turn_1" and fork.messages == (HELLO, *SAID[0], *SAID[1])


@pytest.mark.parametrize("version", [-1, 4, 2**63 - 1])
async def test_a_fork_at_a_version_that_never_was_is_refused(stores: Stores, version: int) -> None:
    id = await talked(stores, 2)
    with pytest.raises(InvalidRequest, match="at_version"):
        await stores.sessions.fork("acme", id, version)
    assert len((await stores.sessions.list("acme")).sessions) == 1


async def test_no_verb_tells_a_foreign_session_from_none(stores: Stores) -> None:
    theirs = await talked(stores, 1)
    texts = set()
    for id in (theirs, UNKNOWN):
        for call in (
            stores.sessions.read("rival", id),
            stores.sessions.fork("rival", id),
            stores.sessions.summarize("rival", id, Summary(1, "x")),
            stores.sessions.acquire("rival", id, "turn_1", 9.0),
        ):
            with pytest.raises(NotFound) as refusal:
                await call
            texts.add(refusal.value.message)
    assert len(texts) == 1
    for call in (
        stores.sessions.read("acme", "*"),
        stores.sessions.fork("acme", "*"),
        stores.sessions.summarize("acme", "*", Summary(1, "x")),
        stores.sessions.acquire("acme", "*", "turn_1", 9.0),
        stores.sessions.release("acme", "*", "turn_1"),
    ):
        with pytest.raises(InvalidRequest):
            await call


async def test_an_operation_is_known_whatever_came_after_it(stores: Stores) -> None:
    id = await talked(stores, 3)
    for expected in (1, 4):
        assert await stores.sessions.append("acme", id, expected, SAID[0], operation="turn_0") == 2
    assert (await stores.sessions.get("acme", id)).version == 4


async def test_a_summary_is_kept_and_only_one_that_covers_more_replaces_it(stores: Stores) -> None:
    id = await talked(stores, 3)
    for covers, text in ((3, "fïrst"), (5, "second"), (5, "other"), (3, "older")):
        await stores.sessions.summarize("acme", id, Summary(covers, text))
    kept = Summary(5, "second")
    assert (await stores.sessions.get("acme", id)).summary == kept
    assert (await stores.sessions.read("acme", id)).session.summary == kept
    assert (await stores.sessions.list("acme")).sessions[0].summary is None
    assert (await stores.sessions.fork("acme", id, 3)).summary == kept
    assert (await stores.sessions.fork("acme", id, 2)).summary is None
    await stores.sessions.append("acme", id, 4, SAID[3])
    assert (await stores.sessions.get("acme", id)).summary == kept


@pytest.mark.parametrize(
    "summary", [Summary(0, "x"), Summary(4, "x"), Summary(1, "é" * port.MAX_SUMMARY_BYTES)]
)
async def test_a_summary_of_nothing_or_too_much_is_refused(stores: Stores, summary: Summary) -> None:
    id = await talked(stores, 1)
    with pytest.raises(InvalidRequest, match="summary"):
        await stores.sessions.summarize("acme", id, summary)
    assert (await stores.sessions.get("acme", id)).summary is None


async def test_one_turn_holds_a_session_until_it_lets_go(stores: Stores) -> None:
    id = await talked(stores, 0)
    for _ in range(2):
        assert await stores.sessions.acquire("acme", id, "turn_a", 15.0) == "turn_a"
    assert await stores.sessions.acquire("acme", id, "turn_b", 15.0) == "turn_a"
    await stores.sessions.release("acme", id, "turn_b")
    assert await stores.sessions.acquire("acme", id, "turn_b", 15.0) == "turn_a"
    for _ in range(2):
        await stores.sessions.release("acme", id, "turn_a")
    assert await stores.sessions.acquire("acme", id, "turn_b", 15.0) == "turn_b"


async def test_what_another_turn_appends_meanwhile_is_refused(stores: Stores) -> None:
    id = await talked(stores, 1)
    await stores.sessions.acquire("acme", id, "turn_a", 15.0)
    for operation in ("turn_b", ""):
        with pytest.raises(Conflict):
            await stores.sessions.append("acme", id, 2, SAID[1], operation=operation)
    assert await stores.sessions.append("acme", id, 1, SAID[0], operation="turn_0") == 2  # it has happened
    assert await stores.sessions.append("acme", id, 2, SAID[1], operation="turn_a") == 3


async def test_a_lease_ends_by_itself_and_is_renewed_by_its_turn(stores: Stores) -> None:
    id = await talked(stores, 0)
    await stores.sessions.acquire("acme", id, "turn_a", 15.0)
    await stores.pass_time(10.0)
    await stores.sessions.acquire("acme", id, "turn_a", 15.0)
    await stores.pass_time(10.0)
    assert await stores.sessions.acquire("acme", id, "turn_b", 15.0) == "turn_a"
    await stores.pass_time(6.0)
    assert await stores.sessions.acquire("acme", id, "turn_b", 15.0) == "turn_b"
    with pytest.raises(Conflict):
        await stores.sessions.append("acme", id, 1, SAID[0], operation="turn_a")


async def test_turns_that_wait_get_the_session_in_the_order_of_their_arrival(stores: Stores) -> None:
    id, turns = await talked(stores, 0), [f"turn_{c}" for c in "zaybx"]
    await stores.sessions.acquire("acme", id, "turn_first", 15.0)
    for turn in turns:
        assert await stores.sessions.acquire("acme", id, turn, 15.0, wait=True) == "turn_first"
    await stores.sessions.release("acme", id, "turn_first")
    for turn in turns:
        assert await stores.sessions.acquire("acme", id, "turn_new", 15.0) == turn
        asked = {
            each: await stores.sessions.acquire("acme", id, each, 15.0, wait=True) for each in turns[::-1]
        }
        assert asked.pop(turn) == turn and set(asked.values()) <= {turn}
        await stores.sessions.release("acme", id, turn)
        turns = [each for each in turns if each != turn]
    assert await stores.sessions.acquire("acme", id, "turn_new", 15.0) == "turn_new"


async def test_a_waiting_turn_that_stops_asking_loses_its_place(stores: Stores) -> None:
    id = await talked(stores, 0)
    await stores.sessions.acquire("acme", id, "turn_a", 60.0)
    await stores.sessions.acquire("acme", id, "turn_gone", 60.0, wait=True)
    await stores.pass_time(2.0)
    await stores.sessions.acquire("acme", id, "turn_b", 60.0, wait=True)
    await stores.pass_time(2.0)
    await stores.sessions.release("acme", id, "turn_a")
    assert await stores.sessions.acquire("acme", id, "turn_b", 60.0) == "turn_b"


async def test_the_line_of_waiting_turns_is_bounded(stores: Stores) -> None:
    id = await talked(stores, 0)
    await stores.sessions.acquire("acme", id, "turn_a", 60.0)
    for n in range(port.MAX_WAITING):
        await stores.sessions.acquire("acme", id, f"turn_w{n}", 60.0, wait=True)
    with pytest.raises(Full):
        await stores.sessions.acquire("acme", id, "turn_late", 60.0, wait=True)
    assert await stores.sessions.acquire("acme", id, "turn_w3", 60.0, wait=True) == "turn_a"


async def test_a_deleted_session_has_no_writer(stores: Stores) -> None:
    id = await talked(stores, 0)
    await stores.sessions.acquire("acme", id, "turn_a", 60.0)
    await stores.sessions.delete("acme", id)
    with pytest.raises(NotFound):
        await stores.sessions.acquire("acme", id, "turn_a", 60.0)
    await stores.sessions.release("acme", id, "turn_a")
