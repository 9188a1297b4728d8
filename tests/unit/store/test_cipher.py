"""Sealed values: opened by their key and in their place, and by nothing else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.store.cipher import AesGcm, Plain, Unreadable, about, derive, master_key

KEY, OTHER = b"k" * 32, b"o" * 32
PLACE = about("acme", "session_1", 0)


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_a_sealed_value_is_opened_by_its_key_in_its_place(data: bytes, place: bytes) -> None:
    sealed = AesGcm(KEY).seal(data, place)
    assert AesGcm(KEY).open(sealed, place) == data
    assert Plain().open(Plain().seal(data, place), place) == data


@given(st.binary(min_size=8, max_size=300))
def test_a_sealed_value_does_not_show_what_it_is(data: bytes) -> None:
    assert data not in AesGcm(KEY).seal(data, PLACE)


def test_the_same_value_is_sealed_differently_each_time() -> None:
    cipher = AesGcm(KEY)
    assert len({cipher.seal(b"again", PLACE) for _ in range(50)}) == 50


def test_another_key_and_another_place_open_nothing() -> None:
    sealed = AesGcm(KEY).seal(b"secret", PLACE)
    with pytest.raises(Unreadable):
        AesGcm(OTHER).open(sealed, PLACE)
    for place in (b"", about("acme", "session_1", 1), about("rival", "session_1", 0)):
        with pytest.raises(Unreadable):
            AesGcm(KEY).open(sealed, place)


def test_a_changed_or_cut_value_is_unreadable_and_says_nothing_of_it() -> None:
    sealed = AesGcm(KEY).seal(b"canary", PLACE)
    changed = [sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :] for i in range(len(sealed))]
    for bad in (*changed, *(sealed[:n] for n in range(len(sealed))), b"canary"):
        with pytest.raises(Unreadable) as refusal:
            AesGcm(KEY).open(bad, PLACE)
        assert "canary" not in str(refusal.value)


def test_derived_keys_differ_by_master_purpose_and_names() -> None:
    calls = [
        (KEY, "journal", "acme"),
        (OTHER, "journal", "acme"),
        (KEY, "session", "acme"),
        (KEY, "journal", "rival"),
        (KEY, "journal", "acme", "turn_1"),
        (KEY, "journal", "acmeturn_1"),
        (KEY, "journalacme", ""),
    ]
    keys = {derive(master, purpose, *names) for master, purpose, *names in calls}
    assert len(keys) == len(calls) and {len(key) for key in keys} == {32}
    assert derive(*calls[0]) == derive(*calls[0])


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_no_two_places_have_one_name(one: list[str], other: list[str]) -> None:
    assert (about(*one) == about(*other)) == (one == other)


def test_a_key_has_32_bytes() -> None:
    assert master_key(base64.b64encode(KEY).decode()) == KEY
    for text in ("canary!", base64.b64encode(b"canary").decode(), "é" * 44, ""):
        with pytest.raises(ValueError) as refusal:
            master_key(text)
        assert not text or text not in str(refusal.value)
    with pytest.raises(ValueError):
        AesGcm(b"short")
