"""What `headrace cluster bundle` takes out of text, and what it leaves in."""

import base64
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.cluster.mask import MASK, Mask, known_in, secret, secret_name

KEY = "hr_live_abcdefgh_" + "A" * 43 + "_abcdef"
NONE = Mask()


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:s3cret-word@host:6379/0",
        "redis+sentinel://:s3cret-word@a,b/main",
        "Authorization: Bearer s3cret-word-of-somebody",
        "HEADRACE_LINK_TOKEN=s3cret-word",
        '"password": "s3cret-word"',
        "redis_password = 's3cret-word'",
        "--api-key=s3cret-word",
        "-----BEGIN EC PRIVATE KEY-----\ns3cret-word\n-----END EC PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\ns3cret-word and no end",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    found = NONE.text(f"before {text} after" if "no end" not in text else text)
    assert "s3cret-word" not in found and MASK in found


@pytest.mark.parametrize(
    "token", [KEY, "hf_" + "a" * 34, "AKIAABCDEFGHIJKLMNOP", "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"]
)
def test_tokens_of_known_shapes_are_masked(token: str) -> None:
    assert NONE.text(f"key {token} used") == f"key {MASK} used"


@pytest.mark.parametrize(
    "text",
    [
        'headrace_completion_tokens_total{model="m"} 7',
        "max_tokens=512 completion_tokens: 12",
        "tokenizer: /models/m/tokenizer.json",
        "secretName: headrace-tls",
        "prompt_tokens 12, turn 3 completed in 2.1 s",
        "http://10.0.0.1:8000/-/healthz",
        "passwordFile=/run/secrets/a",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert NONE.text(text) == text


@given(st.text(string.ascii_letters + string.digits + "-_@:/+%&\"' ", min_size=6, max_size=80).map(str.strip))
def test_a_known_value_is_in_no_text_in_any_spelling(value: str) -> None:
    if len(value) < 6:
        return
    encoded = base64.b64encode(value.encode()).decode()
    mask = Mask(known_in([{"data": {"a": encoded}}]))
    for text in (f"x {value} y", json.dumps({"q": value}), f"q={encoded}"):
        found = mask.text(text)
        assert value not in found.replace(MASK, "") and encoded.rstrip("=") not in found


def test_a_password_within_an_address_is_known_by_itself() -> None:
    address = base64.b64encode(b"redis://u:pa%2Fss-word@host/0").decode()
    mask = Mask(known_in([{"data": {"url": address}}]))
    assert mask.text("login failed with pa/ss-word or pa%2Fss-word") == f"login failed with {MASK} or {MASK}"


def test_a_secret_shows_names_and_sizes() -> None:
    """Also where the item does not say that it is one, as in a list of the API server."""
    item = {"metadata": {"name": "a", "annotations": {"x": "value"}}, "data": {"k": "YWJj"}}
    shown = json.dumps(secret(item))
    assert "(3 bytes)" in shown and "YWJj" not in shown and "annotations" not in shown


def test_environments_are_masked_by_name_and_references_stay() -> None:
    env = [
        {"name": "MY_TOKEN", "value": "abc"},
        {"name": "LEVEL", "value": "info"},
        {"name": "KEY_PEPPER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pepper"}}},
    ]
    shown = NONE.item({"kind": "Pod", "spec": {"env": env}})["spec"]["env"]
    assert shown == [{"name": "MY_TOKEN", "value": MASK}, env[1], env[2]]


def test_names_of_secrets_are_told_from_names_of_counts_and_places() -> None:
    secrets = ("HEADRACE_LINK_TOKEN", "password", "redisPassword", "apiKey", "master-key", "client_secret")
    other = ("max_tokens", "tokens_total", "secretName", "tokenizer", "passwordFile", "model", "keys")
    assert all(map(secret_name, secrets)) and not any(map(secret_name, other))


@pytest.mark.parametrize(
    "word", ["token", "eyJ-", "a://", "bearer ", "-", "x", "-----BEGIN PRIVATE KEY-----"]
)
@pytest.mark.timeout(10)
def test_a_text_that_is_one_long_word_is_masked_in_a_time_that_grows_with_its_length(word: str) -> None:
    assert NONE.text(word * (200_000 // len(word))) is not None
