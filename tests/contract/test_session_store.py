"""The SessionStore contract, on every adapter."""

import asyncio

import pytest

from services.core.errors import Conflict, HeadraceError, InvalidRequest, NotFound
from services.core.request import Message, Role, ToolCall
from services.sessions import port
from tests.contract.stores import Stores

HELLO = Message(Role.USER, "héllo\n \x00 👩‍👩‍👧 <|im_end|>")
ANSWER = Message(Role.ASSISTANT, "")
CALLING = Message(
    Role.ASSISTANT, "", "I ünderstand", (ToolCall("call_1", "f", '{"a": "é"}'), ToolCall("call_2", "g", "{"))
)
RESULT = Message(Role.TOOL, "", call_id="call_1")
TTL = 3600.0
UNKNOWN = "session_" + "f" * 32


async def test_a_created_session_is_read_back_whole(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (Message(Role.SYSTEM, "be brief"), HELLO, ANSWER), TTL)
    assert await stores.sessions.get("acme", made.id) == made
    assert (made.version, made.created, made.expires) == (1, stores.clock.now(), stores.clock.now() + TTL)


async def test_a_session_may_begin_empty(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (), TTL)
    assert await stores.sessions.append("acme", made.id, 1, (HELLO,)) == 2
    assert (await stores.sessions.get("acme", made.id)).messages == (HELLO,)


async def test_a_tool_loop_is_read_back_whole(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO, CALLING), TTL)
    await stores.sessions.append("acme", made.id, 1, (RESULT, CALLING))
    got = await stores.sessions.get("acme", made.id)
    assert got.messages == (HELLO, CALLING, RESULT, CALLING)


async def test_arguments_and_reasoning_count_against_the_bound(stores: Stores) -> None:
    half = "x" * (port.MAX_TEXT_BYTES // 2)
    with pytest.raises(InvalidRequest, match="bytes"):
        calls = (ToolCall("call_1", "f", half),)
        await stores.sessions.create("acme", (Message(Role.ASSISTANT, "", half, calls),), TTL)


async def test_appends_keep_their_order_and_count_versions(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO,), TTL)
    assert await stores.sessions.append("acme", made.id, 1, (ANSWER, HELLO)) == 2
    assert await stores.sessions.append("acme", made.id, 2, (ANSWER,)) == 3
    got = await stores.sessions.get("acme", made.id)
    assert (got.version, got.messages) == (3, (HELLO, ANSWER, HELLO, ANSWER))


async def test_an_append_to_another_version_changes_nothing(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO,), TTL)
    for wrong in (0, 2, -1):
        with pytest.raises(Conflict):
            await stores.sessions.append("acme", made.id, wrong, (ANSWER,))
    assert await stores.sessions.get("acme", made.id) == made


async def test_of_concurrent_appends_one_wins(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (), TTL)
    tries = (stores.sessions.append("acme", made.id, 1, (HELLO,), operation=f"turn_{n}") for n in range(10))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [r for r in results if not isinstance(r, Conflict)] == [2]
    assert (await stores.sessions.get("acme", made.id)).messages == (HELLO,)


async def test_a_repeated_operation_happens_once(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (), TTL)
    for _ in range(3):
        assert await stores.sessions.append("acme", made.id, 1, (HELLO,), operation="turn_1") == 2
    assert await stores.sessions.append("acme", made.id, 2, (ANSWER,), operation="turn_2") == 3
    assert (await stores.sessions.get("acme", made.id)).messages == (HELLO, ANSWER)


async def test_without_an_operation_a_repeat_is_a_conflict(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (), TTL)
    await stores.sessions.append("acme", made.id, 1, (HELLO,))
    with pytest.raises(Conflict):
        await stores.sessions.append("acme", made.id, 1, (HELLO,))


async def test_a_foreign_session_and_an_absent_one_look_the_same(stores: Stores) -> None:
    theirs = (await stores.sessions.create("acme", (HELLO,), TTL)).id
    texts = set()
    for id in (theirs, UNKNOWN):
        for call in (
            stores.sessions.get("rival", id),
            stores.sessions.append("rival", id, 1, (HELLO,)),
            stores.sessions.delete("rival", id),
        ):
            with pytest.raises(NotFound) as refusal:
                await call
            texts.add(refusal.value.message)
    assert len(texts) == 1
    assert (await stores.sessions.list("rival")).sessions == ()
    assert (await stores.sessions.get("acme", theirs)).version == 1


async def test_a_tenant_whose_name_begins_like_another_is_another(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO,), TTL)
    assert (await stores.sessions.list("acme-2")).sessions == ()
    assert [s.id for s in (await stores.sessions.list("acme")).sessions] == [made.id]


@pytest.mark.parametrize(
    "id", ["", "*", "{tag}", "session_", UNKNOWN + "\n", UNKNOWN.upper(), "session_" + "٣" * 32, "a" * 10_000]
)
async def test_an_ill_formed_id_is_refused(stores: Stores, id: str) -> None:
    for call in (
        stores.sessions.get("acme", id),
        stores.sessions.append("acme", id, 1, ()),
        stores.sessions.delete("acme", id),
    ):
        with pytest.raises(InvalidRequest):
            await call


async def test_an_expired_session_is_gone_and_leaves_the_list(stores: Stores) -> None:
    short = await stores.sessions.create("acme", (HELLO,), 60.0)
    long = await stores.sessions.create("acme", (HELLO,), TTL)
    await stores.pass_time(61.0)
    with pytest.raises(NotFound):
        await stores.sessions.get("acme", short.id)
    with pytest.raises(NotFound):
        await stores.sessions.append("acme", short.id, 1, (HELLO,))
    assert [s.id for s in (await stores.sessions.list("acme")).sessions] == [long.id]


async def test_an_append_renews_the_time_to_live(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO,), 60.0)
    await stores.pass_time(40.0)
    await stores.sessions.append("acme", made.id, 1, (ANSWER,))
    await stores.pass_time(40.0)
    got = await stores.sessions.get("acme", made.id)
    assert (got.version, got.messages) == (2, (HELLO, ANSWER))
    assert got.expires == pytest.approx(made.created + 100.0)
    assert (await stores.sessions.list("acme")).sessions[0].expires == got.expires
    await stores.pass_time(21.0)
    with pytest.raises(NotFound):
        await stores.sessions.get("acme", made.id)


async def test_reading_does_not_renew_it(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO,), 60.0)
    await stores.pass_time(40.0)
    await stores.sessions.get("acme", made.id)
    await stores.pass_time(21.0)
    with pytest.raises(NotFound):
        await stores.sessions.get("acme", made.id)


async def test_the_list_is_newest_first_in_pages_without_messages(stores: Stores) -> None:
    made = []
    for _ in range(7):
        made.append(await stores.sessions.create("acme", (HELLO,), TTL))
        stores.clock.advance(0.5)
    seen, token, sizes = [], "", []
    while not sizes or token:
        page = await stores.sessions.list("acme", 3, token)
        seen += page.sessions
        sizes.append(len(page.sessions))
        token = page.next_page_token
    assert sizes == [3, 3, 1]
    assert [s.id for s in seen] == [s.id for s in reversed(made)]
    assert all(s.messages == () for s in seen)


async def test_sessions_of_one_instant_are_listed_once_each(stores: Stores) -> None:
    made = {(await stores.sessions.create("acme", (), TTL)).id for _ in range(5)}
    first = await stores.sessions.list("acme", 3)
    rest = await stores.sessions.list("acme", 3, first.next_page_token)
    assert {s.id for s in first.sessions + rest.sessions} == made
    assert rest.next_page_token == ""


async def test_a_page_that_ends_the_list_has_no_token(stores: Stores) -> None:
    for _ in range(3):
        await stores.sessions.create("acme", (), TTL)
    page = await stores.sessions.list("acme", 3)
    assert (len(page.sessions), page.next_page_token) == (3, "")


async def test_a_page_token_outlives_its_session(stores: Stores) -> None:
    for _ in range(4):
        await stores.sessions.create("acme", (), TTL)
    page = await stores.sessions.list("acme", 2)
    await stores.sessions.delete("acme", page.sessions[-1].id)
    assert len((await stores.sessions.list("acme", 2, page.next_page_token)).sessions) == 2


@pytest.mark.parametrize(("size", "token"), [(-1, ""), (101, ""), (1, "x"), (1, "0" * 16 + UNKNOWN + "\n")])
async def test_an_ill_formed_page_is_refused(stores: Stores, size: int, token: str) -> None:
    with pytest.raises(InvalidRequest):
        await stores.sessions.list("acme", size, token)


async def test_a_deleted_session_is_gone(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (HELLO,), TTL)
    await stores.sessions.delete("acme", made.id)
    assert (await stores.sessions.list("acme")).sessions == ()
    for call in (stores.sessions.get("acme", made.id), stores.sessions.delete("acme", made.id)):
        with pytest.raises(NotFound):
            await call


async def test_a_session_is_bounded_in_messages(stores: Stores) -> None:
    full = (Message(Role.USER, "x"),) * port.MAX_MESSAGES
    made = await stores.sessions.create("acme", full, TTL)
    with pytest.raises(InvalidRequest, match="2000 messages"):
        await stores.sessions.append("acme", made.id, 1, (HELLO,))
    with pytest.raises(InvalidRequest, match="2000 messages"):
        await stores.sessions.create("acme", (*full, HELLO), TTL)
    assert (await stores.sessions.get("acme", made.id)).messages == full


async def test_a_session_is_bounded_in_bytes_of_text(stores: Stores) -> None:
    half = Message(Role.USER, "é" * (port.MAX_TEXT_BYTES // 4))
    made = await stores.sessions.create("acme", (half, half), TTL)
    for text in ("x", "é" * port.MAX_TEXT_BYTES):
        with pytest.raises(InvalidRequest, match="bytes of text"):
            await stores.sessions.append("acme", made.id, 1, (Message(Role.USER, text),))
    assert await stores.sessions.append("acme", made.id, 1, (ANSWER,)) == 2


async def test_a_refusal_never_repeats_content(stores: Stores) -> None:
    made = await stores.sessions.create("acme", (), TTL)
    secret = Message(Role.USER, "canary-text")
    with pytest.raises(HeadraceError) as refusal:
        await stores.sessions.append("acme", made.id, 9, (secret,))
    assert "canary" not in str(refusal.value)
