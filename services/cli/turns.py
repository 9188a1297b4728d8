"""`headrace turns`: turns that go on without a reader."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.client import Turn

app = typer.Typer(help="Turns at the endpoint: start, get, resume, cancel.", no_args_is_help=True)
Endpoint = Annotated[
    str | None, typer.Option(help="host:port, or https://host:port. Else HEADRACE_ENDPOINT.")
]
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key. Else HEADRACE_API_KEY.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(help="Id of the turn.")]


@app.command()
def start(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="Model, if the endpoint serves several.")] = "",
    session: Annotated[str, typer.Option(help="Id of a session whose history precedes it.")] = "",
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of the answer at most.")] = None,
    endpoint: Endpoint = None,
    key_file: KeyFile = None,
) -> None:
    """Ask without waiting; prints the id of the turn."""
    from services.cli import calls, where

    target = where.find(endpoint, key_file)
    asked = {"model": model, "session": session, "max_tokens": max_tokens}
    print(calls.call(target, lambda client: client.start(prompt, **asked)).id)  # type: ignore[arg-type]


@app.command()
def get(id: Id, as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Print a turn as far as it is: its answer, and on stderr its state."""
    from services.cli import calls, where

    _print(calls.call(where.find(endpoint, key_file), lambda client: client.turn(id)), as_json)


@app.command()
def cancel(id: Id, as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """End a turn, if it still runs."""
    from services.cli import calls, where

    _print(calls.call(where.find(endpoint, key_file), lambda client: client.cancel(id)), as_json)


@app.command()
def resume(id: Id, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Read a turn from its beginning, and on as it comes. Ctrl-C leaves it running."""
    from services.cli import calls, where
    from services.cli.telling import tell

    calls.call(where.find(endpoint, key_file), lambda client: tell(client.resume(id), []))


def _print(turn: "Turn", as_json: bool) -> None:
    import sys
    from dataclasses import asdict, replace

    from services.cli import output

    failure = turn.error and {"outcome": turn.error.outcome, "message": turn.error.message}
    if as_json:
        output.as_json(asdict(replace(turn, error=None)) | {"error": failure})
        return
    why = f": {turn.error.message}" if turn.error else ""
    print(f"{turn.id} {turn.state}{why}", file=sys.stderr)
    for message in turn.messages:
        print(output.safe(message.text))
