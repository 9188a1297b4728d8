"""Stages on the terminal: a spinner with the elapsed time where somebody watches, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@dataclass(slots=True)
class Stage:
    """One step of the bring-up. `note` is printed when it is done."""

    name: str
    note: str = ""


class Report:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        began = time.monotonic()
        stage = Stage(name)
        with self._spinner(name):
            yield stage
        self._line(name, time.monotonic() - began, stage.note)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, name: str, seconds: float, note: str) -> None:
        self.line(f"  {name:<12} {seconds:6.1f} s  {note}")

    def _spinner(self, name: str) -> Progress | nullcontext[None]:
        if not self._console.is_terminal:
            return nullcontext()
        columns = (SpinnerColumn(), TextColumn(f"{name:<12}"), TimeElapsedColumn())
        progress = Progress(*columns, console=self._console, transient=True)
        progress.add_task(name, total=None)
        return progress
