"""Which part of a prompt decides where it goes."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.routing.prefix import BLOCK, DEEPEST, NODES, Prefixes

SALT, OTHER_SALT = "a" * 64, "b" * 64


def text(seed: int, tokens: int) -> list[int]:
    drawn = random.Random(seed)
    return [drawn.randrange(200_000) for _ in range(tokens)]


def keys(prefixes: Prefixes, prompts: Sequence[list[int]]) -> list[bytes | None]:
    return [prefixes.key(SALT, prompt) for prompt in prompts]


def test_a_prompt_below_one_block_has_no_key() -> None:
    prefixes = Prefixes()
    assert prefixes.key(SALT, text(1, BLOCK - 1)) is None
    assert prefixes.key(SALT, text(1, BLOCK)) is not None


@given(st.integers(2 * BLOCK, 40 * BLOCK), st.integers(0, 5 * BLOCK))
def test_prompts_with_one_system_prompt_share_a_key_from_the_third_on(shared: int, own: int) -> None:
    system = text(0, shared)
    prompts = [[*system, *text(i, own + BLOCK)] for i in range(1, 9)]
    assert len(set(keys(Prefixes(), prompts)[1:])) == 1


def test_short_questions_and_long_ones_after_one_system_prompt_share_a_key() -> None:
    system = text(0, 3 * BLOCK + 5)
    prompts = [[*system, *text(i, 3 if i % 2 else 200)] for i in range(1, 12)]
    assert len(set(keys(Prefixes(), prompts)[4:])) == 1


def test_system_prompts_that_begin_with_one_preamble_have_keys_of_their_own() -> None:
    preamble = text(0, BLOCK + 3)
    systems = [[*preamble, *text(i, 4 * BLOCK)] for i in range(1, 21)]
    prefixes = Prefixes()
    for turn in range(3):
        found = keys(prefixes, [[*system, *text(100 + turn, BLOCK)] for system in systems])
    assert len(set(found)) == 20


def test_a_preamble_alone_is_not_worth_a_common_replica() -> None:
    preamble = text(0, BLOCK + 3)
    found = keys(Prefixes(), [[*preamble, *text(i, 300)] for i in range(1, 101)])
    assert len(set(found)) > 95


@given(st.lists(st.integers(1, 3 * BLOCK), min_size=2, max_size=20))
def test_a_conversation_that_is_sent_whole_each_time_keeps_its_key(growth: list[int]) -> None:
    prefixes, prompt, found = Prefixes(), text(0, 2 * BLOCK), set()
    for turn, tokens in enumerate(growth):
        found.add(prefixes.key(SALT, prompt))
        prompt = [*prompt, *text(turn + 1, tokens)]
    assert len(found) == 1


@given(st.lists(st.integers(0, 2**32 - 1), max_size=5 * BLOCK))
def test_two_salts_never_share_a_key(prompt: list[int]) -> None:
    prefixes = Prefixes()
    one, other = prefixes.key(SALT, prompt), prefixes.key(OTHER_SALT, prompt)
    assert one is None if len(prompt) < BLOCK else one != other


def test_what_follows_the_deepest_block_does_not_matter() -> None:
    long = text(0, (DEEPEST + 2) * BLOCK)
    prefixes = Prefixes()
    assert len(set(keys(prefixes, [[*long, *text(i, 500)] for i in range(1, 6)]))) == 1


def test_a_flood_of_prompts_is_forgotten_and_costs_no_more_memory() -> None:
    prefixes = Prefixes(nodes=100)
    keys(prefixes, [text(i, 10 * BLOCK) for i in range(50)])
    assert len(prefixes._nodes) == 100 < NODES
