"""Stop strings: text is delivered up to the first match, in whatever pieces it comes."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """A beginning of one or more stop strings (Aho and Corasick's automaton)."""

    depth: int
    onward: "dict[str, Node]" = field(default_factory=dict)
    shorter: "Node | None" = None  # the longest other beginning that this one ends with
    complete: str | None = None  # the longest stop string that this one ends with


class StopScanner:
    """Holds back only what may be the beginning of a stop string.

    The match is the one that is complete first, and of those the longest: what a client that looks at
    every character would see, so the pieces make no difference. After it nothing comes out.
    """

    __slots__ = ("_held", "_matched", "_node", "_root")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._root = self._node = automaton(stops)
        self._held = ""
        self._matched = False

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that may be delivered, and the stop string that was met."""
        if self._matched:
            return "", None
        if not self._root.onward:
            return text, None
        node = self._node
        for index, character in enumerate(text):
            node = self._step(node, character)
            if node.complete is not None:
                return self._match(text[: index + 1], node.complete)
        self._node = node
        text = self._held + text
        deliver = len(text) - node.depth
        self._held = text[deliver:]
        return text[:deliver], None

    def flush(self) -> str:
        """What was held back, when nothing more will come."""
        held, self._held, self._node = self._held, "", self._root
        return held

    def _step(self, node: Node, character: str) -> Node:
        while (following := node.onward.get(character)) is None:
            if node.shorter is None:
                return node
            node = node.shorter
        return following

    def _match(self, text: str, stop: str) -> tuple[str, str]:
        deliver = (self._held + text).removesuffix(stop)
        self._held, self._matched = "", True
        return deliver, stop


def automaton(stops: tuple[str, ...]) -> Node:
    root = Node(0)
    for stop in stops:
        node = root
        for character in stop:
            node = node.onward.setdefault(character, Node(node.depth + 1))
        node.complete = stop
    _link(root)
    return root


def _link(root: Node) -> None:
    """Breadth first, so that the shorter beginnings are linked before the longer ones."""
    level = [root]
    while level:
        for node in level:
            for character, child in node.onward.items():
                child.shorter = _suffix(node, character) or root
                child.complete = child.complete or child.shorter.complete
        level = [child for node in level for child in node.onward.values()]


def _suffix(node: Node, character: str) -> Node | None:
    while node.shorter is not None:
        node = node.shorter
        if (found := node.onward.get(character)) is not None:
            return found
    return None
