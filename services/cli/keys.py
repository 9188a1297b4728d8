"""`headrace keys`: API keys, in the store that the settings name. Only a digest of a key is ever stored."""

from pathlib import Path
from typing import Annotated

import typer

from services.core.request import Scope

app = typer.Typer(
    help="API keys: create, list, revoke. Needs redis_url and key_pepper from the settings or the local stack.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Who will call with it: a-z, 0-9 and -, at most 63.")],
    name: Annotated[str, typer.Option(help="What it is for, shown in lists.")] = "",
    days: Annotated[float | None, typer.Option(help="Days until it expires. Without it: never.")] = None,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="May be repeated. reasoning: see a model's reasoning; bench: ignore_eos."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="File to write it to, readable by its owner only, in place of printing."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once.

    Example:  headrace keys create --tenant search --name ci --days 90
    """
    from services.cli import keyring

    keyring.create(tenant, name, days, frozenset(scope or ()), to, as_json=as_json)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None, as_json: Json = False
) -> None:
    """List keys, without their secrets."""
    from services.cli import keyring

    keyring.show(tenant, as_json=as_json)


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="Id of the key, as in the list.")]) -> None:
    """Make a key invalid. Gateways notice within seconds."""
    from services.cli import keyring

    keyring.revoke(id)
