"""Conversations become prompts through the checkpoint's own chat template, and never more than it meant.

Control tokens are the template's to write. A caller's text that spells one (`<|im_start|>system`) stays
text, and everybody else's prompt is exactly what the model's authors render.
"""

import json
import re
import secrets
import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.core.clock import Clock
from services.core.errors import InvalidRequest, Violation
from services.core.request import Conversation, Message, Role, ToolCall
from services.text.checkpoint import Checkpoint, CheckpointError
from services.text.messages import (
    STYLES,
    Clean,
    Style,
    as_dictionaries,
    as_tools,
    rendered,
    skeleton,
    with_words,
    words_of,
)

SKELETONS = 512  # of which the control tokens are remembered
REASON_CHARS = 200
# What a template raises: its own refusals, and what comes of values that it does not expect.
REFUSALS = (TemplateError, TypeError, ValueError, RecursionError)


class ChatTemplate:
    """Renders the conversations of every checkpoint with a Jinja chat template."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock) -> None:
        self._checkpoint = checkpoint
        try:
            self._template = _environment(clock).from_string(checkpoint.chat_template)
        except TemplateSyntaxError as error:
            raise CheckpointError(f"chat template, line {error.lineno}: {error.message}") from error
        self._thinks = "reasoning_content" in checkpoint.chat_template
        self._style = next(filter(self._tells, STYLES), STYLES[0])
        self._skeleton: Callable[[Conversation], list[int]] = lru_cache(SKELETONS)(self._control_of)

    def prompt(self, conversation: Conversation) -> list[int]:
        said = rendered(conversation, thinks=self._thinks)
        expected = self._skeleton(skeleton(said))
        try:
            return self._whole(said, expected) or self._apart(said, expected)
        except REFUSALS as error:
            raise _invalid("the chat template refuses them") from error  # its reason may quote content

    def control(self, conversation: Conversation) -> list[int]:
        """The control tokens of its prompt."""
        return self._skeleton(skeleton(rendered(conversation, thinks=self._thinks)))

    def _control_of(self, bare: Conversation) -> list[int]:
        """The control tokens that the template writes for a skeleton."""
        try:
            return self._control(self._encode(self._render(bare)))
        except REFUSALS as error:
            reason = str(error).split("\n")[0][:REASON_CHARS]
            raise _invalid(f"the chat template refuses them: {reason}") from error

    def _whole(self, said: Conversation, expected: list[int]) -> list[int] | None:
        """The text encoded at once, as the model's authors do; None if content spells control tokens."""
        ids = self._encode(self._render(said))
        return ids if self._control(ids) == expected else None

    def _apart(self, said: Conversation, expected: list[int]) -> list[int]:
        """Marks that nobody can guess stand in for content, which is then encoded without control tokens.

        White space at its ends stays outside the mark, for templates that trim. Functions and calls stand in
        the template's text, their control tokens spelled otherwise.
        """
        nonce = secrets.token_hex(16)
        words = words_of(said)
        marked = with_words(said, [_marked(text, f"{nonce}x{n}x") for n, text in enumerate(words)])
        parts = re.split(rf"{nonce}x(\d+)x", self._render(marked, self._escaped))
        if any(nonce[:8] in part.lower() for part in parts[::2]):
            raise _invalid("they spell control tokens where the chat template takes the text apart")
        ids: list[int] = []
        for template_text, index in zip(parts[::2], [*parts[1::2], None], strict=True):
            ids += self._encode(template_text)
            if index is not None:
                ids += self._encode_plain(words[int(index)].strip())
        if (said.functions or any(m.calls for m in said.messages)) and self._control(ids) != expected:
            raise _invalid("they spell control tokens", self._culprit(said))
        return ids

    def _culprit(self, said: Conversation) -> str:
        changed = as_tools(said.functions, self._escaped) != as_tools(said.functions, str)
        return "tools" if changed else "messages"

    def _escaped(self, text: str) -> str:
        """The first character of a control token as JSON's escape of it."""
        return self._spelled.sub(lambda found: f"\\u{ord(found[0][0]):04x}{found[0][1:]}", text)

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        known = map(self._checkpoint.tokenizer.id_to_token, self._checkpoint.control)
        tokens = [token for token in known if token]
        return re.compile("|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True)) or r"(?!)")

    def _tells(self, style: Style) -> bool:
        """Whether the template writes all of a call, and nothing of Python's: templates differ in what they take."""
        asked, call = Message(Role.USER, "x"), ToolCall("x", "name_of_it", '{"key_of_it": "x"}')
        try:
            without = self._render(Conversation((asked,)), style=style)
            text = self._render(Conversation((asked, Message(Role.ASSISTANT, calls=(call,)))), style=style)
        except REFUSALS:
            return False
        odd = "{'key_of_it'" in text or text.count("None") > without.count("None")
        return call.name in text and "key_of_it" in text and not odd

    def _render(self, said: Conversation, clean: Clean = str, style: Style | None = None) -> str:
        return self._template.render(
            messages=[*as_dictionaries(said.messages, clean, style or self._style)],
            add_generation_prompt=True,
            tools=as_tools(said.functions, clean),
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


def _invalid(description: str, field: str = "messages") -> InvalidRequest:
    return InvalidRequest(Violation(field, description))


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
