"""The vocabulary o200k_harmony and its control tokens, loaded once in a process and from no network."""

from functools import cache
from typing import Any

from openai_harmony import Author, HarmonyEncoding, HarmonyError, Message, Role, load_harmony_encoding

START, END, MESSAGE, CHANNEL, CONSTRAIN = 200006, 200007, 200008, 200005, 200003
RETURN, CALL, ENDOFTEXT = 200002, 200012, 199999
STOP_IDS = (RETURN, CALL, ENDOFTEXT)
FIRST_CONTROL = 199998  # ids from here on stand for no text
NAMED_CONTROLS = range(FIRST_CONTROL, 200019)  # those that a checkpoint's tokenizer knows by name
VOCAB_SIZE = 201088

# A function's result: releases of the library differ in where they write the recipient.
PINNED = "<|start|>functions.f<|channel|>commentary to=assistant<|message|>x<|end|>"


class HarmonyAbsent(RuntimeError):
    """The installed openai_harmony is not the one that prompts are pinned to. The message says what to do."""


@cache
def encoding() -> HarmonyEncoding:
    """About 0.3 s and 55 MB, once. Raises HarmonyAbsent."""
    try:
        return load_harmony_encoding("HarmonyGptOss")
    except (HarmonyError, OSError, RuntimeError) as error:
        # openai-harmony, which installs the same module, would download the vocabulary.
        raise HarmonyAbsent(f"oss-harmony does not load without a network; {REINSTALL}") from error


def check() -> None:
    """Raises HarmonyAbsent if prompts would not be those that every gateway and the tests agree on."""
    result = Message.from_author_and_content(Author.new(Role.TOOL, "functions.f"), "x")
    result = result.with_recipient("assistant").with_channel("commentary")
    if encoding().decode(encoding().render(result)) != PINNED:
        raise HarmonyAbsent(f"the installed openai_harmony renders tool results otherwise; {REINSTALL}")


REINSTALL = "install oss-harmony 0.0.11 last: openai-harmony puts its module in the same place"


@cache
def token_table() -> list[bytes]:
    """The bytes of each id below FIRST_CONTROL. The binding has them one id at a time: 0.3 s, once."""
    decode: Any = encoding()._inner.decode_bytes
    return [decode([id]) for id in range(FIRST_CONTROL)]


@cache
def longest_token() -> int:
    return max(map(len, token_table()))
