"""Who joins or leaves moves its own keys only."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.routing.rendezvous import ranked

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)
KEY = st.binary(min_size=16, max_size=16)


@given(NAMES, KEY)
def test_who_leaves_changes_nobody_elses_rank(names: list[str], key: bytes) -> None:
    rank = ranked(key, names)
    for gone in names:
        assert ranked(key, [name for name in names if name != gone]) == [n for n in rank if n != gone]


@given(NAMES, KEY)
def test_the_order_in_which_replicas_were_found_does_not_matter(names: list[str], key: bytes) -> None:
    assert ranked(key, sorted(names)) == ranked(key, sorted(names, reverse=True))


def test_a_replica_that_joins_takes_its_share_of_the_keys() -> None:
    keys, names = [i.to_bytes(16, "big") for i in range(4000)], [f"r{i}" for i in range(7)]
    homes = Counter(ranked(key, names)[0] for key in keys)
    assert max(homes.values()) < 1.2 * 4000 / 7
    moved = [key for key in keys if ranked(key, [*names, "new"])[0] != ranked(key, names)[0]]
    assert all(ranked(key, [*names, "new"])[0] == "new" for key in moved)
    assert 0.8 * 500 < len(moved) < 1.2 * 500
