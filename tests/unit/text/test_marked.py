"""Answers of models by chat template: thoughts stay hidden, calls come whole, broken ones have a name."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.text.chat import Chat
from services.text.families import load
from services.text.family import Kind, Piece
from services.text.marked import MarkedParser
from tests.support.checkpoints import BARE, DEEPSEEK_MARKS, QWEN, QWEN_MARKS, deepseek, write
from tests.support.clock import FakeClock

FUNCTIONS = frozenset({"weather", "function"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chat]:
    folder: Path = tmp_path_factory.mktemp("models")
    rows = {
        "qwen": (QWEN_MARKS, QWEN),
        "r1": (DEEPSEEK_MARKS, deepseek()),
        "v3.1": (DEEPSEEK_MARKS, deepseek(BARE, opening="</think>")),
    }
    return {name: load(write(folder / name, *row), FakeClock()) for name, row in rows.items()}  # type: ignore[misc]


def ids_of(model: Chat, text: str) -> list[int]:
    return model.checkpoint.tokenizer.encode(text, add_special_tokens=False).ids


def parser_of(model: Chat, thinking: bool = False) -> MarkedParser:
    return MarkedParser(model.checkpoint, model.markup, FUNCTIONS, thinking=thinking)


def told(pieces: list[Piece]) -> list[tuple[str, str]]:
    """The text of each kind, runs of one kind joined."""
    runs = [(kind, list(run)) for kind, run in groupby(pieces, key=lambda piece: piece.kind)]
    return [(kind.name, "".join(piece.text for piece in run)) for kind, run in runs]


def read(
    parser: MarkedParser, ids: list[int], cuts: Sequence[int] = (), *, cut: bool = False
) -> tuple[list[tuple[str, str]], str]:
    edges = [0, *sorted(c % (len(ids) + 1) for c in cuts), len(ids)]
    pieces = [piece for start, end in pairwise(edges) for piece in parser.push(ids[start:end])]
    rest = parser.finish(cut=cut)
    return told(pieces + rest.pieces), rest.flaw


C, R, CALL, ARGS = "CONTENT", "REASONING", "CALL", "ARGUMENTS"
RAIN = '{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2.50]}}'
RAINED = [(CALL, "weather"), (ARGS, '{"city":"Köln","days":[1,2.5]}')]
FENCED = (
    '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Köln"}\n```<｜tool▁call▁end｜>'
)
BARED = '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Köln"}<｜tool▁call▁end｜>'
SECTION = "<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>"
KOELN = [(CALL, "weather"), (ARGS, '{"city":"Köln"}')]

# model, whether the prompt opened a thought, what is sampled, what is told, the flaw
STREAMS = {
    "an answer": ("qwen", False, "Hello", [(C, "Hello")], ""),
    "a thought and an answer": (
        "qwen",
        False,
        "<think>\n a b \n</think>\n\nHi \n",
        [(R, "a b"), (C, "Hi \n")],
        "",
    ),
    "a thought that the prompt opened": ("r1", True, "\na\n\n</think>\n\nHi", [(R, "a"), (C, "Hi")], ""),
    "a thought opened twice": ("r1", True, "<think>\na</think>Hi", [(R, "a"), (C, "Hi")], ""),
    "an empty thought": ("qwen", False, "<think>\n\n</think>\n\nHi", [(C, "Hi")], ""),
    "a second thought": (
        "qwen",
        False,
        "<think>a</think>A<think>b</think>B",
        [(R, "a"), (C, "A"), (R, "\n\nb"), (C, "\n\nB")],
        "",
    ),
    "a thought without end": ("r1", True, "on and on", [(R, "on and on")], "no_answer"),
    "a thought and nothing": ("r1", True, "a</think>\n", [(R, "a")], "no_answer"),
    "nothing": ("qwen", False, "", [], "empty"),
    "a call": ("qwen", False, f"<tool_call>\n{RAIN}\n</tool_call>", RAINED, ""),
    "a thought, a preamble and a call": (
        "qwen",
        False,
        f"<think>a</think>\n\nI look.\n<tool_call>\n{RAIN}\n</tool_call>",
        [(R, "a"), (C, "I look.\n"), *RAINED],
        "",
    ),
    "parallel calls": (
        "qwen",
        False,
        f"<tool_call>\n{RAIN}\n</tool_call>\n<tool_call>{RAIN}</tool_call>",
        [*RAINED, *RAINED],
        "",
    ),
    "arguments as text": (
        "qwen",
        False,
        r'<tool_call>{"name": "weather", "arguments": "{\"a\": 1}"}</tool_call>',
        [(CALL, "weather"), (ARGS, '{"a":1}')],
        "",
    ),
    "no arguments": (
        "qwen",
        False,
        '<tool_call>{"name": "weather"}</tool_call>',
        [(CALL, "weather"), (ARGS, "{}")],
        "",
    ),
    "half a surrogate": (
        "qwen",
        False,
        r'<tool_call>{"name": "weather", "arguments": {"a": "é\ud800"}}</tool_call>',
        [(CALL, "weather"), (ARGS, r'{"a":"\u00e9\ud800"}')],
        "",
    ),
    "an argument that spells a mark": (
        "qwen",
        False,
        '<tool_call>{"name": "weather", "arguments": {"a": "<think>"}}</tool_call>',
        [(CALL, "weather"), (ARGS, '{"a":"<think>"}')],
        "",
    ),
    "a call without end": ("qwen", False, f"<tool_call>\n{RAIN}\n", RAINED, ""),
    "a call in a call": (
        "qwen",
        False,
        f"<tool_call>{RAIN}<tool_call>{RAIN}</tool_call>",
        [*RAINED, *RAINED],
        "",
    ),
    "a call that breaks off": ("qwen", False, f"<tool_call>{RAIN[:-1]}", [], "bad_arguments"),
    "a call of broken JSON": ("qwen", False, f"<tool_call>{RAIN[:-1]}</tool_call>", [], "bad_arguments"),
    "a call that is no object": ("qwen", False, "<tool_call>[]</tool_call>", [], "bad_arguments"),
    "a call without a name": ("qwen", False, '<tool_call>{"arguments": {}}</tool_call>', [], "bad_arguments"),
    "a name that is none": (
        "qwen",
        False,
        '<tool_call>{"name": ["weather"]}</tool_call>',
        [],
        "bad_arguments",
    ),
    "arguments that are a list": (
        "qwen",
        False,
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>',
        [],
        "bad_arguments",
    ),
    "a number that JSON has not": (
        "qwen",
        False,
        '<tool_call>{"name": "weather", "arguments": {"a": 1e999}}</tool_call>',
        [],
        "bad_arguments",
    ),
    "nesting without end": (
        "qwen",
        False,
        "<tool_call>" + '{"a":' * 100_000 + "</tool_call>",
        [],
        "bad_arguments",
    ),
    "a function that nobody offered": (
        "qwen",
        False,
        'ok<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        [(C, "ok")],
        "unknown_tool",
    ),
    "an answer after a call": (
        "qwen",
        False,
        f"A\n<tool_call>{RAIN}</tool_call>\nB",
        [(C, "A\n"), *RAINED, (C, "\n\nB")],
        "",
    ),
    "a call in a thought": (
        "r1",
        True,
        f"a {SECTION.format(FENCED)}",
        [(R, 'a functionweather\n```json\n{"city": "Köln"}\n```')],
        "no_answer",
    ),
    "an end of nothing": ("qwen", False, "a</think></tool_call>b", [(C, "ab")], ""),
    "a fenced call": ("r1", True, f"a</think>{SECTION.format(FENCED)}", [(R, "a"), *KOELN], ""),
    "fenced calls": (
        "r1",
        True,
        f"a</think>ok{SECTION.format(FENCED + chr(10) + FENCED)}",
        [(R, "a"), (C, "ok"), *KOELN, *KOELN],
        "",
    ),
    "a bare call": ("v3.1", False, SECTION.format(BARED), KOELN, ""),
    "a bare call without a section": ("v3.1", False, BARED, KOELN, ""),
    "a bare call by a model of fences": (
        "r1",
        True,
        f"a</think>{SECTION.format(BARED)}",
        [(R, "a"), *KOELN],
        "",
    ),
    "bare calls": ("v3.1", False, SECTION.format(BARED + BARED), [*KOELN, *KOELN], ""),
    "a section that breaks off": (
        "v3.1",
        False,
        SECTION.format(BARED).split("<｜tool▁call▁end｜>")[0],
        KOELN,
        "",
    ),
    "a function of that name": (
        "v3.1",
        False,
        BARED.replace("weather", "function"),
        [(CALL, "function"), KOELN[1]],
        "",
    ),
    "a call without a separator": ("v3.1", False, BARED.replace("<｜tool▁sep｜>", ""), [], "bad_arguments"),
    "words between calls": ("v3.1", False, SECTION.format(f"{BARED}words{BARED}"), [*KOELN, *KOELN], ""),
    "a thought between calls": (
        "v3.1",
        False,
        SECTION.format(f"{BARED}<think>a</think>b{BARED}"),
        [*KOELN, (R, "a"), *KOELN],
        "",
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_told_apart(models: dict[str, Chat], name: str) -> None:
    model, thinking, text, pieces, flaw = STREAMS[name]
    ids = ids_of(models[model], text)
    assert read(parser_of(models[model], thinking), ids) == (pieces, flaw)
    one_by_one = list(range(len(ids))) if len(ids) < 1000 else []
    assert read(parser_of(models[model], thinking), ids, one_by_one) == (pieces, flaw)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("a</think>b", ["stray_control"]),
        (f"<tool_call>{RAIN}", ["no_end"]),
        (f"<tool_call>{RAIN}<tool_call>{RAIN}</tool_call>", ["no_end"]),
        ("<think>a<tool_call></think>b", ["stray_control"]),
        ("<think>a</think>b", []),
    ],
)
def test_what_could_be_read_all_the_same_is_noted(
    models: dict[str, Chat], text: str, mended: list[str]
) -> None:
    parser = parser_of(models["qwen"])
    read(parser, ids_of(models["qwen"], text))
    assert parser.mended == mended


def test_an_answer_cut_off_has_no_flaw_and_no_part_of_a_call(models: dict[str, Chat]) -> None:
    for text in ("<tool_call>{", "<think>a", ""):
        told_, flaw = read(parser_of(models["qwen"]), ids_of(models["qwen"], text), cut=True)
        assert ([kind for kind, _ in told_ if kind != R], flaw) == ([], "")


def test_tokens_of_thoughts_are_counted_without_their_marks(models: dict[str, Chat]) -> None:
    parser = parser_of(models["qwen"])
    read(parser, ids_of(models["qwen"], "<think>abc</think>de<think>f</think>"))
    assert parser.reasoning_tokens == 4


def test_each_token_has_the_kind_of_its_text(models: dict[str, Chat]) -> None:
    parser, kinds = parser_of(models["qwen"]), []
    for id in ids_of(models["qwen"], "<think>a</think>b<tool_call>{</tool_call>"):
        parser.push([id])
        kinds.append(parser.kind)
    assert kinds == [None, Kind.REASONING, None, Kind.CONTENT, None, None, None]


def test_half_a_character_of_a_thought_never_begins_the_answer(models: dict[str, Chat]) -> None:
    model = models["qwen"]
    half, close = ids_of(model, "🦜")[:2], ids_of(model, "</think>")
    rest = ids_of(model, "🦜")[2:]
    assert read(parser_of(model, True), half + close + rest + ids_of(model, "b"))[0][-1] == (
        C,
        "\ufffd\ufffdb",
    )


# Text within a thought is made of other letters than text outside, so that a leak shows.
MARKS = {"qwen": QWEN_MARKS[2:6], "v3.1": DEEPSEEK_MARKS[4:11]}
WORDS = st.sampled_from(["b", " ", "\n", "é", "🦜", '{"name": "weather"}', "{", "weather"])


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(MARKS)), st.booleans(), st.lists(st.integers(0, 999), max_size=12))
def test_any_split_tells_the_same_and_no_thought_is_content(
    models: dict[str, Chat], data: st.DataObject, name: str, thinking: bool, cuts: list[int]
) -> None:
    parts = data.draw(st.lists(st.one_of(st.sampled_from(MARKS[name]), WORDS), max_size=16))
    text = said(parts, thinking)
    ids = ids_of(models[name], text)
    whole = read(parser_of(models[name], thinking), ids)
    assert read(parser_of(models[name], thinking), ids, cuts) == whole
    assert not [run for run in whole[0] if run[0] != R and "T" in run[1]]
    assert not [run for run in whole[0] if run[0] == R and "b" in run[1]]


def said(parts: list[str], thinking: bool) -> str:
    """The parts, every word of a thought replaced by T. A thought ends at its mark and at nothing else; in a
    call its marks are text."""
    out, calling = [], False
    for part in parts:
        if part in ("<think>", "</think>") and not calling:
            thinking = part == "<think>"
        elif not thinking and part in ("<tool_call>", "<｜tool▁call▁begin｜>"):
            calling = True
        elif not thinking and part.startswith(("</tool", "<｜tool▁call")) and part != "<｜tool▁sep｜>":
            calling = False
        out.append("T" if thinking and not part.startswith("<") else part)
    return "".join(out)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=40), st.booleans())
def test_no_ids_make_it_raise(models: dict[str, Chat], ids: list[int], thinking: bool) -> None:
    for model in models.values():
        for _, text in read(parser_of(model, thinking), ids)[0]:
            text.encode()
