"""Demands on a gpt-oss answer, tried on the grammar that the engine uses."""

from functools import cache

import pytest
import xgrammar as xgr

from services.core.request import (
    Choice,
    Conversation,
    Format,
    Function,
    JsonSchema,
    Message,
    Options,
    Regex,
    Role,
)
from services.text.harmony import structure
from services.text.harmony.vocabulary import FIRST_CONTROL, STOP_IDS, VOCAB_SIZE, encoding
from services.text.structure import is_demanded, whole

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
F = Function("f", "", SCHEMA, strict=True)
G = Function("g", "", SCHEMA)
THINK = "<|channel|>analysis<|message|>hm, {nothing} fixed<|end|><|start|>assistant"
PLAN = "<|channel|>commentary<|message|>Let me.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
JSON = "<|channel|>final <|constrain|>json<|message|>"


def call(name: str) -> str:
    return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"


@cache
def compiler() -> xgr.GrammarCompiler:
    """As in the engine: special tokens spell what no text can, and no token is an end by itself."""
    decode = encoding()._inner.decode_bytes
    spelled = [decode([id]) for id in range(VOCAB_SIZE)]
    vocabulary = [*spelled[:FIRST_CONTROL], *(b"\xff" + name for name in spelled[FIRST_CONTROL:])]
    info = xgr.TokenizerInfo(
        vocabulary, vocab_type=xgr.VocabType.RAW, vocab_size=VOCAB_SIZE, stop_token_ids=[]
    )
    return xgr.GrammarCompiler(info, cache_enabled=False)


def conversation(
    format: Format | None = None, *functions: Function, choice: Choice = Choice.AUTO
) -> Conversation:
    return Conversation((Message(Role.USER, "x"),), functions, choice, format)


def accepts(conversation: Conversation, text: str) -> bool:
    """Whether the whole answer, with its stop id, follows the structural tag."""
    grammar = compiler().compile_structural_tag(whole(structure.of(conversation)))
    matcher = xgr.GrammarMatcher(grammar, override_stop_tokens=list(STOP_IDS))
    ids = encoding().encode(text, allowed_special="all")
    return all(matcher.accept_token(id) for id in ids) and matcher.accept_token(STOP_IDS[0])


CASES = {
    "schema": (conversation(JsonSchema(SCHEMA)), [JSON + '{"city": "Rom"}', THINK + JSON + '{"city":"Rom"}']),
    "regex": (conversation(Regex("[0-9]{4}")), [FINAL + "1984", THINK + FINAL + "1984"]),
    "options": (conversation(Options(("yes", "no"))), [FINAL + "no"]),
    "required call": (
        conversation(None, F, G, choice=Choice.REQUIRED),
        [call("f") + '{"city":"Rom"}', THINK + PLAN + call("g") + '{"anything": 1}'],
    ),
    "strict call or answer": (
        conversation(None, F),
        [THINK + FINAL + "As you like.", call("f") + '{"city":"Rom"}'],
    ),
    "call or format": (conversation(JsonSchema(SCHEMA), G), [call("g") + "{}", JSON + '{"city":"Rom"}']),
    "no calls": (conversation(JsonSchema(SCHEMA), F, choice=Choice.NONE), [JSON + '{"city":"Rom"}']),
    "legal answer": (conversation(), [FINAL + "Hi", THINK + FINAL + "Hi <|end"]),
}
REFUSED = {
    "schema": [FINAL + "Rom", JSON + '{"city": 1}', JSON + "{}", THINK, PLAN + JSON + '{"city":"Rom"}'],
    "regex": [FINAL + "198", FINAL + "1984 "],
    "options": [FINAL + "perhaps", FINAL + "yesno"],
    "required call": [FINAL + "no", call("h") + "{}", call("f") + "{}", call("g") + "1"],
    "strict call or answer": [call("f") + '{"town":"Rom"}'],
    "call or format": [FINAL + "Rom"],
    "no calls": [call("f") + '{"city":"Rom"}'],
    "legal answer": [
        FINAL,
        "Hi",
        call("f") + "{}",
        "<|channel|>finale<|message|>Hi",
        THINK + THINK + FINAL + "Hi",
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_the_grammar_takes_what_was_demanded_and_nothing_else(name: str) -> None:
    asked, good = CASES[name]
    assert [text for text in good if not accepts(asked, text)] == []
    assert [text for text in REFUSED[name] if accepts(asked, text)] == []


def test_an_answer_without_demands_is_free() -> None:
    assert not is_demanded(conversation())
    assert not is_demanded(conversation(None, G))
    assert is_demanded(conversation(None, F))
    assert not is_demanded(conversation(None, F, choice=Choice.NONE))
