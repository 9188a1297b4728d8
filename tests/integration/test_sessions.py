"""Sessions as a tenant has them: the SDK and the command against a whole gateway, on real gRPC and real Redis."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.cli.main import main
from services.client import Client, Exported, HeadraceError, Message, Session
from services.core.request import Message as Said
from services.core.request import Role, Scope
from services.gateway.app import Stores, redis_stores
from tests.support.gateway import Endpoint, memory_stores, running_gateway, settings
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401

MASTER = base64.b64encode(b"m" * 32).decode()
METADATA = {"user": "ü", "app.name": "demo"}


@asynccontextmanager
async def talking(stores: Stores | None = None) -> AsyncIterator[tuple[Client, Endpoint]]:
    async with running_gateway(stores=stores) as endpoint, Client(endpoint.address, endpoint.key) as client:
        yield client, endpoint


async def test_a_session_tells_its_turns_metadata_and_system_prompt() -> None:
    async with talking() as (client, _):
        made = await client.sessions.create(system="Be brief.", metadata=METADATA, ttl=600)
        answer = await client.generate("Hello", session=made.id, max_tokens=4)
        kept = await client.sessions.get(made.id)
        assert kept.metadata == METADATA and kept.messages[0] == Message("system", "Be brief.")
        begun, turn = kept.turns
        assert (begun.turn, begun.version, begun.message_count) == ("", 1, 1)
        assert (turn.turn, turn.version) == (answer.turn, answer.session_version)
        assert (turn.first_message, turn.message_count) == (1, 2)
        [listed] = [each async for each in client.sessions.list()]
        assert (listed.metadata, listed.messages, listed.turns) == (METADATA, (), ())
        later = await client.sessions.get(made.id, from_version=2)
        assert later == replace(kept, messages=kept.messages[1:], turns=(turn,))


async def test_a_session_of_many_bytes_is_read_in_parts_and_whole() -> None:
    async with talking() as (client, endpoint):
        made = await client.sessions.create([Message("user", "a" * 900_000)])
        for version in range(1, 4):
            said = (Said(Role.USER, str(version) * 900_000),)
            await endpoint.stores.sessions.append("acme", made.id, version, said)
        kept = await client.sessions.get(made.id)
        assert [message.text[0] for message in kept.messages] == ["a", "1", "2", "3"]
        assert [turn.version for turn in kept.turns] == [1, 2, 3, 4]
        assert sum(len(message.text) for message in kept.messages) == 3_600_000


async def test_a_fork_goes_its_own_way() -> None:
    async with talking() as (client, _):
        made = await client.sessions.create(metadata=METADATA)
        await client.generate("one", session=made.id, max_tokens=4)
        await client.generate("two", session=made.id, max_tokens=4)
        fork = await client.sessions.fork(made.id, 2)
        assert (fork.version, fork.forked_from, fork.forked_at, fork.metadata) == (2, made.id, 2, METADATA)
        await client.generate("other", session=fork.id, max_tokens=4)
        said = [
            message.text
            for message in (await client.sessions.get(fork.id)).messages
            if message.role == "user"
        ]
        assert said == ["one", "other"]
        assert (await client.sessions.get(made.id)).version == 3
        with pytest.raises(HeadraceError, match="at_version"):
            await client.sessions.fork(made.id, 9)


async def test_an_export_has_everything() -> None:
    async with talking() as (client, _):
        made = await client.sessions.create(system="Be brief.", metadata=METADATA)
        for text in ("one", "two"):
            await client.generate(text, session=made.id, max_tokens=4)
        head, *turns = [part async for part in client.sessions.export(made.id)]
        kept = await client.sessions.get(made.id)
        assert isinstance(head, Session) and head.metadata == METADATA and head.version == 3
        assert all(isinstance(part, Exported) for part in turns)
        assert tuple(part.turn for part in turns if isinstance(part, Exported)) == kept.turns
        said = [message for part in turns if isinstance(part, Exported) for message in part.messages]
        assert tuple(said) == kept.messages


async def test_an_export_shows_reasoning_only_to_keys_that_may_see_it() -> None:
    thought = [Message("user", "x"), Message("assistant", "y", reasoning="hidden")]
    for scopes, seen in (((), ""), ((Scope.REASONING,), "hidden")):
        async with (
            running_gateway(scopes=scopes) as endpoint,
            Client(endpoint.address, endpoint.key) as client,
        ):
            made = await client.sessions.create(thought)
            parts = [part async for part in client.sessions.export(made.id)]
            said = [m.reasoning for part in parts if isinstance(part, Exported) for m in part.messages]
            assert said == ["", seen]


async def test_a_gateway_with_a_master_key_keeps_no_readable_text(valkey_client: Redis) -> None:  # noqa: F811
    memory, kept = memory_stores(), redis_stores(valkey_client, settings(master_key=MASTER))
    stores = Stores(memory.keys, kept.sessions, memory.leases, memory.journals)
    async with talking(stores) as (client, _):
        made = await client.sessions.create(system="canary system", metadata={"note": "canary note"})
        await client.generate("canary question", session=made.id, max_tokens=4)
        raw = [await valkey_client.dump(key) async for key in valkey_client.scan_iter()]
        assert raw and not any(b"canary" in (value or b"") for value in raw)
        assert (await client.sessions.get(made.id)).messages[1].text == "canary question"
        await client.sessions.delete(made.id)
        assert [key async for key in valkey_client.scan_iter()] == []


async def command(endpoint: Endpoint, *arguments: str) -> int:
    """Runs the command in a thread, since it has an event loop of its own."""
    address = ["--endpoint", endpoint.address]

    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *address])
        return int(ended.value.code or 0)

    return await asyncio.to_thread(run)


async def test_the_command_lists_shows_forks_exports_and_deletes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking() as (client, endpoint):
        monkeypatch.setenv("HEADRACE_API_KEY", endpoint.key)
        made = await client.sessions.create(system="Be \x1b[31mbrief", metadata={"user": "ada"})
        answer = await client.generate("Hello", session=made.id, max_tokens=4)
        assert await command(endpoint, "sessions", "list") == 0
        said = capsys.readouterr().out
        assert made.id in said and "user=ada" in said
        assert await command(endpoint, "sessions", "show", made.id) == 0
        said = capsys.readouterr().out
        assert "system: Be [31mbrief" in said and "user: Hello" in said
        assert "-- version 1," in said and answer.turn in said and "\x1b" not in said
        assert await command(endpoint, "sessions", "fork", made.id, "--at", "1") == 0
        fork = await client.sessions.get(capsys.readouterr().out.strip())
        assert (fork.forked_from, fork.version) == (made.id, 1)
        assert await command(endpoint, "sessions", "export", made.id) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [next(iter(json.loads(line))) for line in lines] == ["session", "turn", "turn"]
        assert json.loads(lines[0])["session"]["metadata"] == {"user": "ada"}
        assert json.loads(lines[2])["turn"]["messages"][0]["text"] == "Hello"
        file = tmp_path / "kept.jsonl"
        assert await command(endpoint, "sessions", "export", made.id, "-o", str(file)) == 0
        assert file.read_text().splitlines() == lines and file.stat().st_mode & 0o777 == 0o600
        assert await command(endpoint, "sessions", "export", made.id, "-o", str(tmp_path / "no" / "x")) == 1
        assert "cannot be written" in capsys.readouterr().err
        assert await command(endpoint, "sessions", "delete", made.id) == 0
        assert await command(endpoint, "sessions", "export", made.id, "-o", str(file)) == 4
        assert [each.id async for each in client.sessions.list()] == [fork.id]
