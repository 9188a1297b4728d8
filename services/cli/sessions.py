"""`headrace sessions`: conversations that the endpoint keeps for this key's tenant."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, TypeVar

import typer

app = typer.Typer(help="Conversations kept at the endpoint: list, get, delete.", no_args_is_help=True)
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
    rows = ((each.id, each.version, f"{each.created:%F %T}", f"{each.expires:%F %T}") for each in found)
    output.table(("SESSION", "VERSION", "CREATED (UTC)", "EXPIRES (UTC)"), rows)


@app.command()
def get(id: Id, as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Print the messages of a session."""
    from dataclasses import asdict

    from services.cli import calls, output, where

    session = calls.call(where.find(endpoint, key_file), lambda client: client.sessions.get(id))
    if as_json:
        output.as_json(asdict(session))
        return
    for message in session.messages:
        print(f"{message.role}: {output.safe(message.text)}")


@app.command()
def delete(id: Id, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Forget a session."""
    from services.cli import calls, where

    calls.call(where.find(endpoint, key_file), lambda client: client.sessions.delete(id))
    print(f"{id} is deleted")


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]
