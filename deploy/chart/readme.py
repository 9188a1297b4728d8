"""The chart's README: `frame.md`, written by hand, with the tables of all values in its place."""

import json
from collections.abc import Iterator
from pathlib import Path

from deploy.chart import settings
from deploy.chart.comments import Value, read

FRAME = Path(__file__).parent / "frame.md"
MARK = "<!-- values -->\n"


def document() -> str:
    return FRAME.read_text().replace(MARK, "\n".join(_tables(read())) + "\n")


def _tables(root: Value) -> Iterator[str]:
    plain = [value for value in root.children if not value.children]
    yield from _table("General", "", plain)
    for section in root.children:
        if section.children:
            yield from _table(section.name, section.text, list(section.leaves()))
    yield from _settings()


def _table(title: str, text: str, leaves: list[Value]) -> Iterator[str]:
    yield f"### {title}\n"
    if text:
        yield f"{text}\n"
    yield "| value | default | |"
    yield "| --- | --- | --- |"
    yield from (f"| `{leaf.dotted}` | {_shown(leaf)} | {_cell(leaf.text)} |" for leaf in leaves)
    yield ""


def _shown(leaf: Value) -> str:
    text = json.dumps(leaf.default, ensure_ascii=False)
    return f"`{_cell(text)}`" if len(text) <= 60 else "see values.yaml"


def _settings() -> Iterator[str]:
    """Fields of `gateway.settings`, as the gateway's own class describes them."""
    yield "### Fields of gateway.settings\n"
    yield "| field | |"
    yield "| --- | --- |"
    fields = settings.gateway()[0]["properties"]
    yield from (f"| `{name}` | {_cell(each.get('description', ''))} |" for name, each in fields.items())
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
