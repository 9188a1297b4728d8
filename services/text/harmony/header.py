"""The header of a message: who speaks to whom, on which channel."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.text.family import Kind
from services.text.harmony.vocabulary import CHANNEL, START

CHANNELS = ("analysis", "commentary", "final")
NAMESPACE = "functions."
TYPES = {"json", "code", "text"}  # that may stand after a recipient, with or without CONSTRAIN


class Part(NamedTuple):
    """Text after START, CHANNEL or CONSTRAIN."""

    control: int
    text: bytearray


@dataclass(slots=True)
class Header:
    """`kind` None hides the message; `flaw` says why, if it is not meant to be so."""

    kind: Kind | None = None
    final: bool = False
    function: str = ""
    flaw: str = ""
    mended: list[str] = field(default_factory=list)


def read_header(parts: Sequence[Part], functions: Collection[str]) -> Header:
    """`functions` are the names that may be called."""
    words = {
        control: [w for p in parts if p.control == control for w in _words(p)] for control in (START, CHANNEL)
    }
    recipients = [w[3:] for side in words.values() for w in side if w.startswith("to=")]
    role = [w for w in words[START] if not w.startswith("to=")]
    named = [w for w in words[CHANNEL] if not w.startswith("to=")]
    if role[:1] != ["assistant"]:
        return Header(flaw="foreign_role")
    if recipients and recipients[0] != "assistant":
        return _call(recipients[0], functions, len(recipients) > 1)
    return _message(parts, named)


def _call(recipient: str, functions: Collection[str], repeated: bool) -> Header:
    """A call counts on whatever channel it is made."""
    name = recipient.removeprefix(NAMESPACE)
    if name not in functions:
        return Header(flaw="unknown_tool")
    odd = repeated or not recipient.startswith(NAMESPACE)
    return Header(Kind.CALL, function=name, mended=["odd_header"] if odd else [])


def _message(parts: Sequence[Part], named: list[str]) -> Header:
    channels = [words[0] for p in parts if p.control == CHANNEL and (words := _words(p))]
    if not channels:
        return Header(flaw="no_channel")
    if any(channel not in CHANNELS for channel in channels):
        return Header(flaw="unknown_channel")
    # Of several channels the most private one counts: reasoning stays reasoning.
    kind = Kind.REASONING if "analysis" in channels else Kind.CONTENT
    odd = len(channels) > 1 or any(word not in TYPES for word in named[1:])
    final = kind is Kind.CONTENT and "final" in channels
    return Header(kind, final, mended=["odd_header"] if odd else [])


def _words(part: Part) -> list[str]:
    return part.text.decode("utf-8", "replace").split()
