"""Structural tags of chat-template models, held against xgrammar's own matcher."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.core.request import Choice, Conversation, Function, JsonSchema, Message, Options, Regex, Role
from services.text.chat import Chat
from services.text.families import load
from tests.support.checkpoints import BARE, DEEPSEEK_MARKS, QWEN, QWEN_MARKS, deepseek, write
from tests.support.clock import FakeClock

xgrammar = pytest.importorskip("xgrammar")  # comes with the engine

SCHEMA = {
    "type": "object",
    "properties": {"days": {"type": "integer"}},
    "required": ["days"],
    "additionalProperties": False,
}
WEATHER = Function("weather", parameters=SCHEMA, strict=True)
NEWS = Function("news", parameters=SCHEMA)
ASKED = (Message(Role.USER, "x"),)
REQUIRED = Conversation(ASKED, (WEATHER, NEWS), Choice.REQUIRED)
NAMED = Conversation(ASKED, (WEATHER,), Choice.REQUIRED)
STRICT = Conversation(ASKED, (WEATHER,))
FORMAT = Conversation(ASKED, format=JsonSchema(SCHEMA))
BOTH = Conversation(ASKED, (WEATHER,), format=JsonSchema(SCHEMA))

Accepts = Callable[..., bool]


@pytest.fixture(scope="module")
def accepts(tmp_path_factory: pytest.TempPathFactory) -> Accepts:
    """Whether the model's grammar for the conversation takes the answer and may end after it. `spelled`: marks
    are made of other tokens."""
    folder: Path = tmp_path_factory.mktemp("models")
    rows = {
        "qwen": (QWEN_MARKS, QWEN),
        "r1": (DEEPSEEK_MARKS, deepseek()),
        "v3.1": (DEEPSEEK_MARKS, deepseek(BARE, opening="</think>")),
        "plain": (QWEN_MARKS[:2], "{{ messages[0].content }}"),
    }
    models: dict[str, Chat] = {
        name: load(write(folder / name, *row), FakeClock()) for name, row in rows.items()
    }  # type: ignore[assignment]

    def accepts(name: str, conversation: Conversation, answer: str, *, spelled: bool = False) -> bool:
        model = models[name]
        tag = model.structure(conversation) or model.legal(conversation)
        matcher = xgrammar.GrammarMatcher(compiler_of(model).compile_structural_tag(tag))
        tokenizer = model.checkpoint.plain if spelled else model.checkpoint.tokenizer
        ids = tokenizer.encode(answer, add_special_tokens=False).ids
        return all(matcher.accept_token(id) for id in ids) and matcher.accept_token(model.stop_ids[0])

    return accepts


def compiler_of(model: Chat) -> object:
    vocabulary = model.checkpoint.tokenizer.get_vocab(with_added_tokens=True)
    info = xgrammar.TokenizerInfo(
        sorted(vocabulary, key=vocabulary.__getitem__),
        vocab_type=xgrammar.VocabType.BYTE_LEVEL,
        stop_token_ids=[*model.stop_ids],
    )
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)  # as in the engine


def qwen(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def fenced(name: str, arguments: str) -> str:
    call = f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"
    return f"<｜tool▁calls▁begin｜>{call}<｜tool▁calls▁end｜>"


def bare(name: str, arguments: str) -> str:
    call = f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"
    return f"<｜tool▁calls▁begin｜>{call}<｜tool▁calls▁end｜>"


GOOD, BAD = '{"days": 1}', '{"days": "one"}'


@pytest.mark.parametrize(
    ("name", "thought", "call"), [("qwen", "", qwen), ("r1", "so</think>", fenced), ("v3.1", "", bare)]
)
def test_a_call_that_is_demanded_is_the_only_answer(
    accepts: Accepts, name: str, thought: str, call: Callable[[str, str], str]
) -> None:
    for conversation in (REQUIRED, NAMED):
        assert accepts(name, conversation, thought + call("weather", GOOD))
        assert not accepts(name, conversation, thought + call("weather", BAD))
        assert not accepts(name, conversation, thought + call("other", GOOD))
        assert not accepts(name, conversation, thought + "It rains.")
        assert not accepts(name, conversation, thought)
    assert accepts(name, REQUIRED, thought + call("news", BAD))  # not strict: any object
    assert not accepts(name, NAMED, thought + call("news", GOOD))


def test_several_calls_may_answer_a_demand_for_some_but_not_for_one(accepts: Accepts) -> None:
    twice = qwen("weather", GOOD) + "\n" + qwen("weather", GOOD)
    assert accepts("qwen", REQUIRED, twice)
    assert not accepts("qwen", NAMED, twice)
    assert accepts("qwen", STRICT, twice)


def test_a_strict_function_binds_the_call_and_not_the_answer(accepts: Accepts) -> None:
    assert accepts("qwen", STRICT, "It rains.")
    assert accepts("qwen", STRICT, "I look." + qwen("weather", GOOD))
    assert not accepts("qwen", STRICT, qwen("weather", BAD))
    assert not accepts("qwen", STRICT, "I look." + qwen("weather", BAD))


@pytest.mark.parametrize(
    ("name", "thought"), [("qwen", ""), ("r1", "hm {</think>\n\n"), ("v3.1", ""), ("plain", "")]
)
def test_the_whole_answer_conforms_to_a_format(accepts: Accepts, name: str, thought: str) -> None:
    assert accepts(name, FORMAT, thought + GOOD)
    assert not accepts(name, FORMAT, thought + BAD)
    assert not accepts(name, FORMAT, thought + "Sure: " + GOOD)
    assert accepts(name, Conversation(ASKED, format=Regex("[ab]+")), thought + "abba")
    options = Conversation(ASKED, format=Options(("yes", "no")))
    assert accepts(name, options, thought + "no")
    assert not accepts(name, options, thought + "maybe")


def test_a_thought_before_it_is_free_where_the_model_may_think(accepts: Accepts) -> None:
    assert accepts("qwen", FORMAT, f"<think>what {{ is < it?</think>\n\n{GOOD}")
    assert not accepts("qwen", FORMAT, f"<think>a</think>b{GOOD}")
    assert accepts("r1", FORMAT, f"<think>a</think>{GOOD}")
    assert not accepts("r1", FORMAT, GOOD)
    assert not accepts("r1", NAMED, f"I would {fenced('weather', GOOD)}")


def test_a_format_leaves_calls_as_they_are(accepts: Accepts) -> None:
    assert accepts("qwen", BOTH, GOOD)
    assert accepts("qwen", BOTH, qwen("weather", GOOD))
    assert not accepts("qwen", BOTH, "words")


def test_a_mark_spelled_by_other_tokens_is_none(accepts: Accepts) -> None:
    for name, conversation, answer in (
        ("qwen", NAMED, qwen("weather", GOOD)),
        ("v3.1", NAMED, bare("weather", GOOD)),
        ("r1", FORMAT, f"a</think>{GOOD}"),
    ):
        assert accepts(name, conversation, answer)
        assert not accepts(name, conversation, answer, spelled=True)


def test_a_second_try_is_held_to_an_answer_that_can_be_read(accepts: Accepts) -> None:
    free = Conversation(ASKED, (NEWS,))
    assert accepts("r1", free, "a</think>b")
    assert accepts("r1", free, "a</think>" + fenced("news", GOOD))
    assert not accepts("r1", free, "a</think>")
    assert not accepts("r1", free, "a</think>" + fenced("other", GOOD))
    assert not accepts("plain", Conversation(ASKED), "")


def test_tags_name_tokens_by_id_as_the_engine_reads_them(tmp_path: Path) -> None:
    model = load(write(tmp_path, QWEN_MARKS, QWEN), FakeClock())
    xgrammar.Grammar.from_structural_tag(model.structure(NAMED))  # without a tokenizer, as vLLM checks them
    assert json.loads(model.structure(NAMED))["type"] == "structural_tag"
