"""values.yaml as documented values: each with its path, default, comment and the schema fragment of its comment.

Above a key stands `# -- text`, that may go on in further comment lines, and below the text perhaps
`# @schema {json}`, on several lines if need be.
A mapping whose keys have such comments is a section; everything else is a leaf, a mapping without them included.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "headrace"
SCHEMA = "@schema"


@dataclass(frozen=True, slots=True)
class Value:
    """One key of values.yaml. `children` are those of a section, in the file's order."""

    path: tuple[str, ...]
    default: Any
    text: str = ""
    schema: dict[str, Any] = field(default_factory=dict)
    children: tuple["Value", ...] = ()

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def documented(self) -> bool:
        return bool(self.text) or any(child.documented for child in self.children)

    def leaves(self) -> Iterator["Value"]:
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


class CommentError(ValueError):
    """A comment of values.yaml cannot be read; says which and why."""


def read(path: Path = CHART / "values.yaml") -> Value:
    """The whole file as one section with an empty path. Raises CommentError."""
    text = path.read_text()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return _value((), root, text.splitlines(), 0)


def _value(path: tuple[str, ...], node: Any, lines: list[str], line: int) -> Value:
    comment, schema = _comment(path, lines, line) if path else ("", {})
    children: tuple[Value, ...] = ()
    if isinstance(node, yaml.MappingNode):
        children = tuple(
            _value((*path, key.value), below, lines, key.start_mark.line) for key, below in node.value
        )
    if comment and not any(child.documented for child in children):
        children = ()
    loader = yaml.SafeLoader("")
    default = None if children else loader.construct_object(node, deep=True)
    return Value(path, default, comment, schema, children)


def _comment(path: tuple[str, ...], lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """What the comment lines directly above `line` say."""
    above: list[str] = []
    while line > 0 and re.match(r"^\s*#", lines[line - 1]):
        line -= 1
        above.insert(0, re.sub(r"^\s*# ?", "", lines[line]))
    starts = [index for index, each in enumerate(above) if each.startswith("-- ")]
    if not starts:
        return "", {}
    block = above[starts[-1] :]
    cut = next((at for at, each in enumerate(block) if each.startswith(SCHEMA)), len(block))
    # Indented lines are examples.
    told = [each.removeprefix("-- ").strip() for each in block[:cut] if not each.startswith("  ")]
    prose = " ".join(told).strip()
    fragment = "\n".join(block[cut:]).removeprefix(SCHEMA)
    try:
        return prose, json.loads(fragment or "{}")
    except json.JSONDecodeError as error:
        raise CommentError(f"values.yaml: {'.'.join(path)}: its @schema is not JSON: {error}") from error
