"""The text of a key and what is kept of it."""

import random
import re

import pytest

from services.core.errors import InvalidRequest, Unauthenticated
from services.tenancy.keys import ALPHABET, REFUSAL, digest, mint, parse

PEPPER = b"pepper"


def new_key(seed: int = 1, tenant: str = "acme", env: str = "local"):
    return mint(env, random.Random(seed), tenant=tenant, name="ci", pepper=PEPPER, now=5.0)


def test_a_key_is_what_its_record_says() -> None:
    minted = new_key()
    assert re.fullmatch(r"hr_local_[A-Za-z0-9]{8}_[A-Za-z0-9]{43}_[A-Za-z0-9]{6}", minted.text)
    key = parse(minted.text)
    assert (key.env, key.id, digest(PEPPER, key.secret)) == ("local", minted.record.id, minted.record.digest)
    assert digest(b"other", key.secret) != minted.record.digest


def test_nothing_printed_shows_a_secret() -> None:
    minted = new_key()
    secret = parse(minted.text).secret
    for value in (minted, minted.record, parse(minted.text)):
        assert secret not in repr(value)
        assert minted.record.digest not in repr(value)


def test_every_typo_of_one_character_is_refused() -> None:
    text, rng = new_key().text, random.Random(2)
    for place in range(len("hr_"), len(text)):
        other = rng.choice([c for c in ALPHABET if c != text[place]])
        with pytest.raises(Unauthenticated):
            parse(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", "hr_", "sk-123", "hr_local_a_b_c", " ", "x" * 100_000, "hr_locäl_a_b_c"]
)
def test_ill_formed_text_is_refused_with_the_one_text(text: str) -> None:
    with pytest.raises(Unauthenticated, match=f"^{REFUSAL}$"):
        parse(text)


def test_surrounding_text_is_refused() -> None:
    text = new_key().text
    for wrong in (text + "\n", " " + text, text + "x", text[:-1], text.upper()):
        with pytest.raises(Unauthenticated):
            parse(wrong)


@pytest.mark.parametrize("tenant", ["", "Acme", "a b", "a" * 64, "a/b", "a:b", "{a}", "acme\n", "ä"])
def test_a_tenant_id_is_checked(tenant: str) -> None:
    with pytest.raises(InvalidRequest):
        new_key(tenant=tenant)


@pytest.mark.parametrize("env", ["", "Prod", "a_b", "x" * 17])
def test_an_environment_is_checked(env: str) -> None:
    with pytest.raises(InvalidRequest):
        new_key(env=env)
