"""Grammars that go on in the middle of an output, on xgrammar without an engine."""

import json
import random
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace

import numpy
import pytest
import torch
import xgrammar
from transformers import PreTrainedTokenizerFast
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

from cluster.engine.grammars import Uncached
from cluster.engine.structure import check_structural_tag
from cluster.engine.vocabulary import grammar_tokenizer
from tests.support.gateway import CHECKPOINT
from tests.support.structural_tags import WEATHER, const, schema, sequence, tag

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(120),
    # The derived tokenizer has no end token, on purpose.
    pytest.mark.filterwarnings("ignore:When constructing TokenizerInfo:UserWarning"),
]

STOP = 2
FREE = {"type": "any_tokens", "exclude_tokens": [STOP, 0, 1], "max_tokens": 7}
FORMATS = {
    "schema": schema(WEATHER),
    "counted tokens": sequence(FREE, const("\n\n"), schema(WEATHER)),
    "open object": schema({"type": "object", "additionalProperties": {"type": "integer"}}),
    "pattern": {"type": "regex", "pattern": "[A-Z]{2}-[0-9]{3,5}"},
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    with grammar_tokenizer(CHECKPOINT) as folder:
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


class Compiled(Uncached):
    """Each tag once: a compilation takes 0.3 s, and the tests make many grammars of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.compiler.compile_structural_tag = cache(self.compiler.compile_structural_tag)


@cache
def backend() -> Uncached:
    config = SimpleNamespace(num_speculative_tokens=0)
    return Compiled(config, tokenizer=tokenizer(), vocab_size=len(tokenizer()))


def grammar(format: object, continued: list[int]) -> XgrammarGrammar:
    spec = check_structural_tag(tag(format), (STOP,)).text(continued)
    return backend().compile_grammar(StructuredOutputOptions.STRUCTURAL_TAG, spec, stop_token_ids={STOP})


def allowed(grammar: XgrammarGrammar) -> torch.Tensor:
    mask = xgrammar.allocate_token_bitmask(1, backend().vocab_size)
    grammar.fill_bitmask(mask, 0)
    return mask[0]


def spelled(mask: torch.Tensor) -> list[int]:
    bits = numpy.unpackbits(mask.numpy().view(numpy.uint8), bitorder="little")
    return [int(id) for id in numpy.flatnonzero(bits[: backend().vocab_size])]


def walk(format: object, drawn: random.Random, tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Ids that the grammar allows, one after the other, each with what is allowed after it."""
    held = grammar(format, [])
    for _ in range(tokens):
        id = drawn.choice(spelled(allowed(held)))
        if id == STOP:
            return
        assert held.accept_tokens("walk", [id])
        yield id, allowed(held)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_wherever_an_output_is_cut_the_same_ids_may_follow(name: str, seed: int) -> None:
    walked = list(walk(FORMATS[name], random.Random(seed), 30))
    ids = [id for id, _ in walked]
    assert ids
    for cut, (_, expected) in enumerate(walked, 1):
        gone_on = grammar(FORMATS[name], ids[:cut])
        assert torch.equal(allowed(gone_on), expected)
        assert gone_on.num_processed_tokens == cut and not gone_on.is_terminated()


@pytest.mark.parametrize("ids", [[0], [STOP]], ids=["special", "stop"])
def test_an_output_that_the_grammar_refuses_is_an_error(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="refuses the output") as refused:
        grammar(FORMATS["schema"], ids)
    assert str(ids[0]) not in str(refused.value)


def test_an_output_that_has_ended_is_not_continued() -> None:
    ids = tokenizer().encode("yes", add_special_tokens=False)
    assert not grammar(const("yes"), ids).is_terminated()
    with pytest.raises(ValueError, match="refuses the output"):
        grammar(const("yes"), [*ids, STOP])


def test_the_ids_travel_in_the_tag_and_leave_it_as_it_was() -> None:
    plain = check_structural_tag(tag(const("yes")), (STOP,))
    assert json.loads(plain.text([1, 2])) == {**json.loads(plain.text()), "continued": [1, 2]}
