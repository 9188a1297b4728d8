"""`headrace config`."""

import json

from services.cli import output
from services.cli.exits import USAGE, CliError
from services.cli.settings import effective, wrong_values


def show(*, as_json: bool) -> None:
    found = effective()
    if wrong := wrong_values(found):
        raise CliError(f"a gateway would refuse {'; '.join(wrong)}", code=USAGE)
    if as_json:
        rows = {s.name: {"value": s.shown, "origin": s.origin, "about": s.about} for s in found.settings}
        output.as_json(rows)
        return
    shown = (
        (s.name, "" if s.shown is None else json.dumps(s.shown, default=str).strip('"'), s.origin)
        for s in found.settings
    )
    output.table(("SETTING", "VALUE", "ORIGIN"), shown)
