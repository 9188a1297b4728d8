"""`python -m deploy.chart schema|readme|values|all [--check]`: writes what the chart has of generated files.

With --check nothing is written: exits 1 if a file differs from what would be.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.chart import readme, schema, values
from deploy.chart.comments import CHART, CommentError

Files = Iterator[tuple[Path, str]]


def schemas() -> Files:
    yield CHART / "values.schema.json", schema.document()


def readmes() -> Files:
    yield CHART / "README.md", readme.document()


PARTS: dict[str, Callable[[], Files]] = {"schema": schemas, "readme": readmes, "values": values.documents}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.chart", description="generated files of the chart"
    )
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on a difference")
    asked = parser.parse_args()
    parts = list(PARTS) if asked.part == "all" else [asked.part]
    try:
        stale = [path for part in parts for path, text in PARTS[part]() if differs(path, text, asked.check)]
    except (CommentError, values.DoesNotFit) as error:
        sys.exit(str(error))
    if stale:
        sys.exit("differs from what its sources say: run 'python -m deploy.chart all'")


def differs(path: Path, text: str, check: bool) -> bool:
    """Write `text`, or with `check` show how the file differs from it."""
    old = path.read_text() if path.exists() else ""
    if old == text or not check:
        if old != text:
            path.write_text(text)
        return False
    names = str(path), f"{path} as generated"
    sys.stdout.writelines(
        list(difflib.unified_diff(old.splitlines(True), text.splitlines(True), *names))[:40]
    )
    return True


if __name__ == "__main__":
    main()
