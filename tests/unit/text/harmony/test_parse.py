"""Streams of gpt-oss, well-formed and broken, as ids; and what the library's own parser makes of the good ones."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_harmony import Role, StreamableParser

from services.text.family import Kind, Piece
from services.text.harmony.parse import FATAL, MENDED, HarmonyParser
from services.text.harmony.vocabulary import FIRST_CONTROL, STOP_IDS, VOCAB_SIZE, encoding

C, R, F, A = Kind.CONTENT, Kind.REASONING, Kind.CALL, Kind.ARGUMENTS
THINK = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
CALL = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"


def ids_of(text: str) -> list[int]:
    ids: list[int] = encoding().encode(text, allowed_special="all")
    return ids


class Read:
    """An answer that ends as the engine ends it: the stop id is told and not delivered."""

    def __init__(
        self, ids: Sequence[int], cuts: Sequence[int] = (), functions: Sequence[str] = ("f",)
    ) -> None:
        self.parser = HarmonyParser(functions)
        stopped = bool(ids) and ids[-1] in STOP_IDS
        body = ids[:-1] if stopped else ids
        places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
        pieces: list[Piece] = []
        for a, b in pairwise(places):
            pieces += self.parser.push(body[a:b])
        rest = self.parser.finish(cut=not stopped)
        self.pieces, self.flaw = joined(pieces + rest.pieces), rest.flaw
        self.mended = self.parser.mended

    def of(self, kind: Kind) -> str:
        return "".join(text for k, text in self.pieces if k is kind)


def joined(pieces: list[Piece]) -> list[tuple[Kind, str]]:
    """Neighbours of a kind as one; the name of a call stands alone."""
    groups = groupby(enumerate(pieces), key=lambda p: (p[1].kind, p[0] if p[1].kind is Kind.CALL else -1))
    return [(kind, "".join(piece.text for _, piece in group)) for (kind, _), group in groups]


GOOD = {
    "answer": (FINAL + "Hi é😀<|return|>", [(C, "Hi é😀")]),
    "thought and answer": (THINK + FINAL + "Hi<|return|>", [(R, "hm"), (C, "Hi")]),
    "typed answer": ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", [(C, "{}")]),
    "call": (THINK + CALL + '{"a":1}<|call|>', [(R, "hm"), (F, "f"), (A, '{"a":1}')]),
    "call with its recipient before the channel": (
        " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
        [(F, "f"), (A, "{}")],
    ),
    "call on the analysis channel": (
        "<|channel|>analysis to=functions.f<|message|>{}<|call|>",
        [(F, "f"), (A, "{}")],
    ),
    "preamble and call": (
        "<|channel|>commentary<|message|>Let me.<|end|><|start|>assistant" + CALL + "{}<|call|>",
        [(C, "Let me."), (F, "f"), (A, "{}")],
    ),
    "preamble and answer": (
        "<|channel|>commentary<|message|>Plan.<|end|><|start|>assistant" + FINAL + "Done<|return|>",
        [(C, "Plan.\n\nDone")],
    ),
    "two calls": (
        CALL + "{}<|end|><|start|>assistant" + CALL + '{"b":2}<|call|>',
        [(F, "f"), (A, "{}"), (F, "f"), (A, '{"b":2}')],
    ),
    "cut in the answer": (THINK + FINAL + "Hi the", [(R, "hm"), (C, "Hi the")]),
    "cut in the header": (THINK + "<|channel|>fin", [(R, "hm")]),
    "cut in the arguments": (CALL + '{"a', [(F, "f"), (A, '{"a')]),
    "cut before anything": ("", []),
}

MENDED_STREAMS = {
    "stray_text": (
        THINK.replace("<|start|>", " so<|start|>") + FINAL + "Hi<|return|>",
        [(R, "hm"), (C, "Hi")],
    ),
    "stray_control": (FINAL + "H<|message|>i<|constrain|><|return|>", [(C, "Hi")]),
    "broken_header": ("<|channel|>analysis<|start|>assistant" + FINAL + "Hi<|return|>", [(C, "Hi")]),
    "odd_header": ("<|channel|>final answer follows<|message|>Hi<|return|>", [(C, "Hi")]),
    "no_start": (THINK.removesuffix("<|start|>assistant") + FINAL + "Hi<|return|>", [(R, "hm"), (C, "Hi")]),
    "no_end": (
        "<|channel|>analysis<|message|>hm<|start|>assistant" + FINAL + "Hi<|return|>",
        [(R, "hm"), (C, "Hi")],
    ),
    "foreign_role": (FINAL + "Hi<|end|><|start|>user<|message|>and?<|return|>", [(C, "Hi")]),
}

BROKEN = {
    "plain text without a header": ("I think that<|return|>", "no_message", []),
    "header without a message": ("<|channel|>final Hi<|return|>", "no_message", []),
    "header that never ends": ("<|channel|>final" + " word" * 80 + "<|return|>", "endless_header", []),
    "no channel": ("<|message|>secret<|return|>", "no_channel", []),
    "unknown channel": ("<|channel|>finale<|message|>secret<|return|>", "unknown_channel", []),
    "channel without a name": ("<|channel|><|message|>secret<|return|>", "no_channel", []),
    "foreign role": (THINK[:-9] + "user<|message|>secret<|return|>", "foreign_role", [(R, "hm")]),
    "unknown tool": ("<|channel|>commentary to=functions.g<|message|>{}<|call|>", "unknown_tool", []),
    "built-in tool": ("<|channel|>analysis to=python<|message|>1+1<|call|>", "unknown_tool", []),
    "unknown tool after a preamble": (
        "<|channel|>commentary<|message|>Let me.<|end|><|start|>assistant to=functions.g<|channel|>commentary"
        "<|message|>{}<|call|>",
        "unknown_tool",
        [(C, "Let me.")],
    ),
    "arguments that are no JSON": (CALL + "{nope<|call|>", "bad_arguments", [(F, "f"), (A, "{nope")]),
    "arguments that are no object": (CALL + "[1]<|call|>", "bad_arguments", [(F, "f"), (A, "[1]")]),
    "a bad call before a good one": (
        CALL + "{<|end|><|start|>assistant" + CALL + "{}<|call|>",
        "bad_arguments",
        [(F, "f"), (A, "{"), (F, "f"), (A, "{}")],
    ),
    "reasoning alone": ("<|channel|>analysis<|message|>secret<|return|>", "no_answer", [(R, "secret")]),
    "analysis and final in one header": (
        "<|channel|>analysis<|channel|>final<|message|>secret<|return|>",
        "no_answer",
        [(R, "secret")],
    ),
    "nothing": ("<|return|>", "empty", []),
    "an empty answer": (FINAL + "<|return|>", "empty", []),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_stream_is_read(name: str) -> None:
    text, pieces = GOOD[name]
    read = Read(ids_of(text))
    assert (read.pieces, read.flaw, read.mended) == (pieces, "", [])


@pytest.mark.parametrize("flaw", MENDED_STREAMS)
def test_what_can_be_read_all_the_same_is_read_and_counted(flaw: str) -> None:
    text, pieces = MENDED_STREAMS[flaw]
    read = Read(ids_of(text))
    assert (read.pieces, read.flaw) == (pieces, "")
    assert flaw in read.mended


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_has_a_named_flaw_and_leaks_nothing(name: str) -> None:
    text, flaw, pieces = BROKEN[name]
    read = Read(ids_of(text))
    assert (read.pieces, read.flaw) == (pieces, flaw)
    assert "secret" not in read.of(C)


def test_every_flaw_is_tested() -> None:
    assert {flaw for _, flaw, _ in BROKEN.values()} == set(FATAL)
    assert set(MENDED_STREAMS) - set(FATAL) == set(MENDED)


@pytest.mark.parametrize(
    "text", [" word" * 80, FINAL + "x<|end|>" + " word" * 80, "<|start|>user<|message|>"]
)
def test_a_hopeless_stream_is_given_up(text: str) -> None:
    parser = HarmonyParser()
    parser.push(ids_of(text))
    assert parser.over


def test_a_hopeless_stream_stays_so_in_any_split() -> None:
    ids = ids_of("<|start|>user<|message|>hi<|end|><|start|>assistant" + FINAL + "Hello<|return|>")
    for cuts in ((), range(len(ids))):
        read = Read(ids, cuts)
        assert (read.pieces, read.flaw) == ([], "foreign_role")


def test_a_double_channel_of_visible_ones_is_an_answer() -> None:
    read = Read(ids_of("<|channel|>commentary<|channel|>final<|message|>Hi<|return|>"))
    assert (read.of(C), read.flaw, read.mended) == ("Hi", "", ["odd_header"])


def test_invalid_utf8_becomes_a_replacement_character() -> None:
    lone = next(id for id in range(256) if encoding()._inner.decode_bytes([id]) == b"\xff")
    read = Read([*ids_of(FINAL + "a"), lone, *ids_of("b<|return|>")])
    assert read.of(C) == "a�b"


def test_reasoning_is_counted_apart() -> None:
    read = Read(
        ids_of(
            "<|channel|>analysis<|message|>one two three<|end|><|start|>assistant" + FINAL + "four<|return|>"
        )
    )
    assert read.parser.reasoning_tokens == len(ids_of("one two three"))


message = st.tuples(
    st.sampled_from(["analysis", "commentary", "final", "call"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(message, min_size=1, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_good_streams_read_as_the_librarys_parser_reads_them_in_any_split(
    messages: list[tuple[str, str]], cuts: list[int]
) -> None:
    ids = stream_of(messages)
    theirs = StreamableParser(encoding(), Role.ASSISTANT)
    for id in ids:
        theirs.process(id)
    expected = {kind: "" for kind in (C, R, A)}
    for said in theirs.messages:
        kind = A if said.recipient else R if said.channel == "analysis" else C
        if kind is C and expected[C]:
            expected[C] += "\n\n"
        expected[kind] += said.content[0].text
    read = Read([*ids[:-1], STOP_IDS[0]], cuts)
    assert {kind: read.of(kind) for kind in expected} == expected
    assert read.pieces == Read([*ids[:-1], STOP_IDS[0]]).pieces


def stream_of(messages: list[tuple[str, str]]) -> list[int]:
    ids: list[int] = []
    for channel, text in messages:
        header = CALL if channel == "call" else f"<|channel|>{channel}<|message|>"
        ids += ids_of("<|start|>assistant" + header) if ids else ids_of(header)
        ids += encoding().encode(text, disallowed_special=())
        ids += ids_of("<|end|>")
    return ids


TEXT = [
    encoding().encode(word)[0] for word in (" final", "final", "analysis", "assistant", " to", "user", "json")
]
CONTROL = [200002, 200003, 200005, 200006, 200007, 200008, 200012]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(CONTROL), st.sampled_from(TEXT), st.integers(0, VOCAB_SIZE - 1))))
def test_no_ids_raise_and_only_visible_messages_are_content(ids: list[int]) -> None:
    read = Read(ids)
    assert read.flaw in {"", *FATAL}
    if read.of(C):
        # Content needs a MESSAGE behind a CHANNEL that names a visible one.
        opened = [i for i, id in enumerate(ids) if id == 200008]
        assert any(names_a_visible_channel(ids[:i]) for i in opened)


def names_a_visible_channel(header: list[int]) -> bool:
    last = max((i for i, id in enumerate(header) if id == 200005), default=-1)
    text = encoding().decode([id for id in header[last + 1 :] if id < FIRST_CONTROL])
    return last >= 0 and ("final" in text or "commentary" in text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([200007, 200006, 200005, 200003]), max_size=6), st.integers(0, 5))
def test_reasoning_stays_hidden_whatever_control_tokens_follow_it(noise: list[int], more: int) -> None:
    secret = ids_of("<|channel|>analysis<|message|>") + ids_of("SECRET") * (more + 1)
    read = Read([*secret, *noise, *ids_of("SECRET"), 200002])
    assert "SECRET" not in read.of(C)
