"""`headrace sessions`: conversations that the endpoint keeps for this key's tenant."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

app = typer.Typer(
    help="Conversations kept at the endpoint: list, show, fork, export, delete.", no_args_is_help=True
)
Endpoint = Annotated[
    str | None, typer.Option(help="host:port, or https://host:port. Else HEADRACE_ENDPOINT.")
]
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key. Else HEADRACE_API_KEY.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(help="Id of the session.")]

T = TypeVar("T")


@app.command("list")
def list_(as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """List sessions, newest first."""
    from dataclasses import asdict

    from services.cli import calls, output, where

    found = calls.call(where.find(endpoint, key_file), lambda client: _all(client.sessions.list()))
    if as_json:
        output.as_json([asdict(each) for each in found])
        return
    rows = (
        (each.id, each.version, f"{each.created:%F %T}", f"{each.expires:%F %T}", _pairs(each.metadata))
        for each in found
    )
    output.table(("SESSION", "VERSION", "CREATED (UTC)", "EXPIRES (UTC)", "METADATA"), rows)


@app.command()
def show(id: Id, as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Print the messages of a session, turn by turn."""
    from dataclasses import asdict

    from services.cli import calls, output, where

    session = calls.call(where.find(endpoint, key_file), lambda client: client.sessions.get(id))
    if as_json:
        output.as_json(asdict(session))
        return
    for turn in session.turns:
        head = " ".join(filter(None, (f"{turn.created:%F %T}", turn.turn, turn.model)))
        print(output.safe(f"-- version {turn.version}, {head}"))
        for message in session.messages[turn.first_message : turn.first_message + turn.message_count]:
            print(f"{message.role}: {output.safe(message.text)}")


@app.command()
def fork(
    id: Id,
    at_version: Annotated[int, typer.Option("--at", min=0, help="Version to fork at; 0: the newest.")] = 0,
    endpoint: Endpoint = None,
    key_file: KeyFile = None,
) -> None:
    """Make a session that goes on from a version of this one, and print its id."""
    from services.cli import calls, where

    target = where.find(endpoint, key_file)
    print(calls.call(target, lambda client: client.sessions.fork(id, at_version)).id)


@app.command()
def export(
    id: Id,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, for you alone to read. Else stdout.")
    ] = None,
    endpoint: Endpoint = None,
    key_file: KeyFile = None,
) -> None:
    """Write all that is kept of a session as JSON Lines: the session first, then each turn with its messages."""
    from services.cli import calls, export, where

    found = calls.call(where.find(endpoint, key_file), lambda client: _all(client.sessions.export(id)))
    export.write(found, output)


@app.command()
def delete(id: Id, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Forget a session."""
    from services.cli import calls, where

    calls.call(where.find(endpoint, key_file), lambda client: client.sessions.delete(id))
    print(f"{id} is deleted")


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def _pairs(metadata: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(metadata.items()))
