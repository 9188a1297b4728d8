"""Stop strings against an oracle that looks at every character."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.text.stop import StopScanner

SMALL = st.text("ab\n🦜", max_size=12)
STOPS = st.lists(st.text("ab\n🦜", min_size=1, max_size=4), min_size=0, max_size=4).map(tuple)


def oracle(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Up to the match that is complete first; of those the longest."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            longest = max(met, key=len)
            return text[: end - len(longest)], longest
    return text, None


def scanned(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, str | None]:
    scanner, out, matched = StopScanner(stops), "", None
    for piece in pieces:
        passed, met = scanner.push(piece)
        out, matched = out + passed, matched or met
    return out + scanner.flush(), matched


@settings(max_examples=500, deadline=None)
@given(st.lists(SMALL, max_size=6), STOPS)
def test_any_split_gives_the_text_up_to_the_first_match(pieces: list[str], stops: tuple[str, ...]) -> None:
    assert scanned(pieces, stops) == oracle("".join(pieces), stops)


@settings(max_examples=300, deadline=None)
@given(SMALL, STOPS)
def test_no_more_is_held_back_than_could_be_a_stop(text: str, stops: tuple[str, ...]) -> None:
    scanner = StopScanner(stops)
    passed, matched = scanner.push(text)
    held = scanner.flush()
    if matched is None:
        assert passed + held == text
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_what_looked_like_a_stop_is_delivered_when_it_is_none() -> None:
    scanner = StopScanner(("END",))
    assert [scanner.push(piece) for piece in ("a EN", "T", " E")] == [
        ("a ", None),
        ("ENT", None),
        (" ", None),
    ]
    assert scanner.flush() == "E"


def test_nothing_comes_after_a_match() -> None:
    scanner = StopScanner(("\n\n",))
    assert scanner.push("one\n\ntwo\n\n") == ("one", "\n\n")
    assert scanner.push("three\n\n") == ("", None)
    assert scanner.flush() == ""


def test_without_stops_text_passes_as_it_is() -> None:
    text = "x" * 1000
    assert StopScanner(()).push(text)[0] is text
