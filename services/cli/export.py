"""A session as JSON Lines, for its tenant to take away."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from services.cli.exits import stop
from services.client import Exported, Session


def write(parts: Iterable[Session | Exported], path: Path | None) -> None:
    """To stdout, or to a new or replaced file that only its owner can read. Raises CliError."""
    text = "".join(f"{_line(part)}\n" for part in parts)
    if path is None:
        sys.stdout.write(text)
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        part.replace(path)
    except OSError as error:
        stop(f"{path} cannot be written: {error.strerror}")


def _line(part: Session | Exported) -> str:
    """Characters of control are escaped, as in all JSON: a terminal shows them as text."""
    kind = "session" if isinstance(part, Session) else "turn"
    return json.dumps({kind: asdict(part)}, default=str)
