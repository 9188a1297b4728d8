"""Refuses input that the operator has ruled out, before an engine sees it."""

import re
from collections.abc import Iterable

from services.core.errors import UnsafeInput
from services.core.request import Message


class Screen:
    """Patterns are the operator's, tried on each message of the request; an empty list lets everything pass.

    Raises re.error for a broken pattern when it is built, UnsafeInput from `check`.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def check(self, messages: Iterable[Message], demands: Iterable[str] = ()) -> None:
        """`demands`: the texts of tools and formats, which a model reads as well."""
        if not self._patterns:
            return
        for text in (*(part for message in messages for part in message.parts), *demands):
            if any(pattern.search(text) for pattern in self._patterns):
                raise UnsafeInput("the input screen of this endpoint refuses a message or a tool")
