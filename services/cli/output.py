"""What commands print: tables for people, JSON for scripts."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

# What a model says is not to move the cursor or rename the window.
CONTROLS = {code: None for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        shown.add_row(*(safe(str(cell)) for cell in row))
    console().print(shown, markup=False)


def console() -> Console:
    # A pipe has no width; 80 columns would break rows that a script reads.
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)


def safe(text: str) -> str:
    return text.translate(CONTROLS)
