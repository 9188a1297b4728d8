"""Whom the printed Roles are bound to, and what is no name."""

import pytest
import yaml

from services.cli import exits
from services.cli.main import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["cluster", "role", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        (("--user", "alice"), {"kind": "User", "name": "alice"}),
        (("--user", "oidc:alice"), {"kind": "User", "name": "oidc:alice"}),
        (("--user", "Alice Smith"), {"kind": "User", "name": "Alice Smith"}),
        (("--account", "ops:bot.v1"), {"kind": "ServiceAccount", "name": "bot.v1", "namespace": "ops"}),
    ],
)
def test_a_user_is_bound_as_it_is_written_and_an_account_as_one(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], subject: dict[str, str]
) -> None:
    code, out, _ = printed(capsys, "-n", "inference", *arguments)
    bindings = [each for each in yaml.safe_load_all(out) if each["kind"].endswith("Binding")]
    assert code == 0 and len(bindings) == 2
    for binding in bindings:
        [found] = binding["subjects"]
        assert subject.items() <= found.items()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--account NAMESPACE:NAME"),
        (("--user", "a", "--account", "b:c"), "one of them"),
        (("--user", ""), "--user ''"),
        (("--user", " alice"), "--user ' alice'"),
        (("--user", "a\nb"), "--user"),
        (("--account", "bot"), "NAMESPACE:NAME"),
        (("--account", "BAD NS:bot"), "the namespace of --account"),
        (("--account", "ops:"), "the name of --account"),
        (("--account", "a:b:c"), "the name of --account"),
        (("--user", "alice", "-n", "BAD NS"), "--namespace"),
        (("--user", "alice", "-n", "n" * 64), "63 characters"),
        (("--user", "alice", "-n", ""), "--namespace"),
    ],
)
def test_what_is_no_name_is_one_line_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = printed(capsys, "-n", "inference", *arguments)
    assert (code, out) == (exits.USAGE, "") and words in err and err.count("\n") == 1
