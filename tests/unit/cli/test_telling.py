"""What the terminal says of an answer whose connection broke."""

import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.cli.telling import tell
from services.client import Client, HeadraceError, Resume
from tests.support.flaky import LOST, Item, delta, finished, flaky, rewind, started

SOON = Resume(first_pause=0.01, longest_pause=0.05)


async def told(*calls: list[Item], capsys: pytest.CaptureFixture[str]) -> tuple[str, str, list[str]]:
    shown = list[str]()
    async with flaky(*calls) as endpoint, Client(endpoint.address, "hr_x", resume=SOON) as client:
        await tell(client.stream("Hello"), shown)
    out, err = capsys.readouterr()
    return out, err, shown


async def test_a_lost_connection_is_mentioned_once_and_the_answer_is_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first: list[Item] = [started(), delta(2, "Ro"), LOST]
    out, err, shown = await told(first, [delta(3, "me"), LOST], [finished(4)], capsys=capsys)
    assert (out, "".join(shown)) == ("Rome\n", "Rome")
    assert err.count("connection lost, resumed") == 1


async def test_an_answer_that_came_out_differently_is_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    first: list[Item] = [started(), delta(2, "Rome"), LOST]
    second: list[Item] = [rewind(1, ""), delta(3, "Paris", epoch=2), finished(4, epoch=2)]
    out, err, shown = await told(first, second, capsys=capsys)
    assert "".join(shown) == "Paris"
    assert out == "RomeParis\n"
    assert "differently" in err


async def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out, _, _ = await told([started(), delta(2, "a\x1b[2Jb"), finished(3)], capsys=capsys)
    assert out == "a[2Jb\n"


async def test_what_was_shown_of_a_failed_answer_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    shown, broken = list[str](), list[Item]([started(), delta(2, "Ro"), LOST])
    async with flaky(broken) as endpoint, Client(endpoint.address, "hr_x", resume=None) as client:
        with pytest.raises(HeadraceError):
            await tell(client.stream("Hello"), shown)
    assert shown == ["Ro"]


async def test_a_wait_is_told_once_and_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    waits = [
        pb.StreamEvent(seq=seq, waiting=pb.Waiting(reason=pb.Waiting.NO_REPLICA, position=1))
        for seq in (2, 3)
    ]
    out, err, _ = await told([started(), *waits, delta(4, "Rome"), finished(5)], capsys=capsys)
    assert (out, err) == ("Rome\n", "[no replica is up yet; waiting for one]\n")
