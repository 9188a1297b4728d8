"""What a command is pointed at, and one line for what cannot be an endpoint, a key or a certificate."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from services.cli.exits import USAGE, CliError
from services.cli.where import find
from services.client import Client, Tls
from tests.support.certificates import self_signed
from tests.unit.cli.test_command import run_cli

KEY = "hr_live_abcdefgh_x_y"
Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def models(endpoint: str, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return run_cli(tmp_path / "home", "models", "--endpoint", endpoint, *words, **env)

    return models


def one_line(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert done.returncode == USAGE, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("headrace: ")
    for word in words:
        assert word in done.stderr


WRONG = ("h h:1", "h:1/v1", "h:65536", "h:1:2", "[::1:5", "ftp://h:1", "a:1,,b:1", "h:x")


@pytest.mark.parametrize("endpoint", [",", " , ", "https://", "http://", "https:///", "https://,", *WRONG])
def test_an_endpoint_that_nobody_can_call_is_named(ask: Ask, endpoint: str) -> None:
    one_line(ask(endpoint, HEADRACE_API_KEY=KEY), "names no endpoint", "host:port")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe\x00", "holds no API key"),
        ("hr_live_schl\u00fcssel".encode(), "holds no API key"),
        (b"hr_live_a\nhr_live_b\n", "holds no API key"),
        (b"sk-secretsecret", "holds no API key"),
    ],
)
def test_a_file_that_holds_no_key_is_named_and_not_shown(
    ask: Ask, tmp_path: Path, content: bytes, word: str
) -> None:
    (file := tmp_path / "key").write_bytes(content)
    done = ask("127.0.0.1:9", "--key-file", str(file))
    one_line(done, str(file), word)
    assert "secretsecret" not in done.stderr


def test_a_key_of_the_environment_that_is_none_is_named(ask: Ask) -> None:
    one_line(ask("127.0.0.1:9", HEADRACE_API_KEY="hr_live_a\nb"), "HEADRACE_API_KEY holds no API key")


def test_a_key_file_may_end_with_a_line_break(tmp_path: Path) -> None:
    (file := tmp_path / "key").write_text(f"{KEY}\n")
    assert find("h:9", file, {"HEADRACE_HOME": str(tmp_path)}).key == KEY


@pytest.mark.parametrize("content", [None, b"", b"no PEM\n", b"\xff\xfe"])
def test_a_root_that_is_none_is_named_before_anything_is_sent(
    ask: Ask, tmp_path: Path, content: bytes | None
) -> None:
    root = tmp_path / "ca.pem"
    if content is not None:
        root.write_bytes(content)
    done = ask("https://127.0.0.1:9", HEADRACE_API_KEY=KEY, HEADRACE_CA=str(root))
    one_line(done, str(root), "cannot be read" if content is None else "no certificate in PEM", "HEADRACE_CA")


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_missing_file_of_the_pair_is_named(ask: Ask, tmp_path: Path, missing: str) -> None:
    files = dict(zip(("certificate", "key"), self_signed(tmp_path), strict=True))
    files[missing] = tmp_path / "nowhere.pem"
    env = {f"HEADRACE_CLIENT_{name.upper()}": str(file) for name, file in files.items()}
    one_line(ask("https://127.0.0.1:9", HEADRACE_API_KEY=KEY, **env), "nowhere.pem cannot be read")


async def test_a_pair_is_checked_before_grpc_sees_it(tmp_path: Path) -> None:
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    certificate, key = self_signed(one)
    other = self_signed(two)[1]
    (junk := tmp_path / "junk").write_text("junk")
    for pair, word in (
        ((certificate, other), "is not the key of"),
        ((junk, key), "no certificate and key in PEM"),
        ((certificate, junk), "no certificate and key in PEM"),
        ((certificate, encrypted(tmp_path, key)), "encrypted"),
    ):
        with pytest.raises(ValueError, match=word):
            Client("127.0.0.1:9", KEY, tls=Tls(None, *pair))
    async with Client("127.0.0.1:9", KEY, tls=Tls(certificate, certificate, key)):
        pass


def encrypted(folder: Path, key: Path) -> Path:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    word = serialization.BestAvailableEncryption(b"word")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (made := folder / "encrypted.pem").write_bytes(private.private_bytes(*form, word))
    return made


@pytest.mark.parametrize("key", ["hr_schl\u00fcssel", "hr_a\nb", "hr_a\x7f"])
async def test_the_sdk_refuses_a_key_that_no_header_carries(key: str) -> None:
    with pytest.raises(ValueError, match="no header can carry"):
        Client("127.0.0.1:9", key)


@pytest.mark.parametrize("command", ["up", "down", "status", "models"])
def test_a_home_that_is_a_file_is_named(tmp_path: Path, command: str) -> None:
    (file := tmp_path / "file").write_text("")
    one_line(run_cli(file, command), f"{file} is not a folder", "HEADRACE_HOME")


def test_settings_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    (file := tmp_path / "gateway.toml").write_bytes(b'redis_url = "\xff"\n')
    one_line(run_cli(tmp_path, "config", HEADRACE_CONFIG=str(file)), f"{file} is not UTF-8")


def test_the_key_is_not_in_what_is_raised() -> None:
    with pytest.raises(CliError) as refused:
        find("h:9", None, {"HEADRACE_API_KEY": "geheim", "HEADRACE_HOME": "/nowhere"})
    assert "geheim" not in str(refused.value)
