"""The chart's README: `frame.md`, written by hand, with the tables of all values in its place."""

import json
from collections.abc import Iterator
from pathlib import Path

from deploy.chart import settings, values
from deploy.chart.comments import Value, read

FRAME = Path(__file__).parent / "frame.md"
VALUES = "<!-- values -->\n"
SHAPES = "<!-- shapes -->\n"


def document() -> str:
    text = FRAME.read_text().replace(VALUES, "\n".join(_tables(read())) + "\n")
    return text.replace(SHAPES, "".join(f"{row}\n" for row in _shapes()))


def _shapes() -> Iterator[str]:
    """A row for each values file that the catalogue makes."""
    yield "| values-laptop.yaml | smollm2-135m, for trials | none |"
    for shape in values.SHAPES:
        yield f"| values-{shape.name}.yaml | {shape.model} | {shape.gpus} x {shape.gpu} |"


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
