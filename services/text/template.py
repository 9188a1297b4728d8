"""Conversations become prompts through the checkpoint's own chat template, and never more than it meant.

Control tokens are the template's to write. A caller's text that spells one (`<|im_start|>system`) stays
text, and everybody else's prompt is exactly what the model's authors render.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.core.clock import Clock
from services.core.errors import InvalidRequest, Violation
from services.core.request import Message, Role
from services.text.checkpoint import Checkpoint, CheckpointError

ROLE_PATTERNS = 512  # of which the skeleton is remembered
REASON_CHARS = 200


class ChatTemplate:
    """Renders the conversations of every checkpoint with a Jinja chat template."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock) -> None:
        self._checkpoint = checkpoint
        try:
            self._template = _environment(clock).from_string(checkpoint.chat_template)
        except TemplateSyntaxError as error:
            raise CheckpointError(f"chat template, line {error.lineno}: {error.message}") from error
        self._skeleton: Callable[[tuple[Role, ...]], list[int]] = lru_cache(ROLE_PATTERNS)(self._control_of)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        expected = self._skeleton(tuple(m.role for m in messages))
        try:
            return self._whole(messages, expected) or self._apart(messages)
        except TemplateError as error:
            raise _invalid("the chat template refuses them") from error  # its reason may quote content

    def _control_of(self, roles: tuple[Role, ...]) -> list[int]:
        """The control tokens of a conversation of these roles: those that the template writes."""
        messages = [Message(role, "x") for role in roles]
        try:
            return self._control(self._encode(self._render(messages, ["x"] * len(roles))))
        except TemplateError as error:
            reason = (error.message or "").split("\n")[0][:REASON_CHARS]
            raise _invalid(f"the chat template refuses them: {reason}") from error

    def _whole(self, messages: Sequence[Message], expected: list[int]) -> list[int] | None:
        """The text encoded at once, as the model's authors do; None if content spells control tokens."""
        ids = self._encode(self._render(messages, [m.text for m in messages]))
        return ids if self._control(ids) == expected else None

    def _apart(self, messages: Sequence[Message]) -> list[int]:
        """Marks that nobody can guess stand in for content, which is then encoded without control tokens.

        White space at its ends stays outside the mark, for templates that trim.
        """
        nonce = secrets.token_hex(16)
        marked = [_marked(m.text, f"{nonce}x{n}x") for n, m in enumerate(messages)]
        parts = re.split(rf"{nonce}x(\d+)x", self._render(messages, marked))
        if any(nonce[:8] in part.lower() for part in parts[::2]):
            raise _invalid("they spell control tokens where the chat template takes the text apart")
        ids: list[int] = []
        for template_text, index in zip(parts[::2], [*parts[1::2], None], strict=True):
            ids += self._encode(template_text)
            if index is not None:
                ids += self._encode_plain(messages[int(index)].text.strip())
        return ids

    def _render(self, messages: Sequence[Message], texts: Sequence[str]) -> str:
        pairs = zip(messages, texts, strict=True)
        return self._template.render(
            messages=[{"role": m.role.value, "content": text} for m, text in pairs],
            add_generation_prompt=True,
            tools=None,
            documents=None,
            **self._checkpoint.special_text,
        )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._checkpoint.plain.encode(text, add_special_tokens=False).ids
        if not self._checkpoint.control.isdisjoint(ids):
            raise _invalid("they spell a control token that this tokenizer cannot write as text")
        return ids

    def _control(self, ids: list[int]) -> list[int]:
        control = self._checkpoint.control
        return [id for id in ids if id in control]


def _invalid(description: str) -> InvalidRequest:
    return InvalidRequest(Violation("messages", description))


def _marked(text: str, mark: str) -> str:
    """The text with everything between its outer white space replaced by the mark."""
    inner = text.strip()
    return text.replace(inner, mark, 1) if inner else text


class Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment(clock: Clock) -> ImmutableSandboxedEnvironment:
    """The environment that chat templates are written for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: time.strftime(form, time.localtime(clock.now()))
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
