"""What is wrong with a kubeconfig is one line about the kubeconfig, and nothing is sent."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.cli import exits
from tests.support.certificates import self_signed
from tests.unit.cli.test_command import run_cli

SERVER = "https://127.0.0.1:9"
Status = Callable[[str | bytes], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def status(tmp_path: Path) -> Status:
    def run(content: str | bytes) -> "subprocess.CompletedProcess[str]":
        (file := tmp_path / "config").write_bytes(content.encode() if isinstance(content, str) else content)
        return run_cli(tmp_path, "cluster", "status", "--kubeconfig", str(file))

    return run


def written(user: dict[str, Any], server: Any = SERVER, **cluster: str) -> str:
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    return json.dumps(whole)  # which is YAML


def plugin(command: str) -> dict[str, Any]:
    api = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": api, "command": command, "args": [], "env": []}}


def one_line(done: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert done.returncode == exits.USAGE and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("headrace: ") and "cannot be used" in done.stderr
    assert words in done.stderr and "does not answer" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("only text\n", "not the form of a kubeconfig"),
        (b"\xff\xfe", "not text"),
        (written({"token": "x"}, 5), "not the form of a kubeconfig"),
    ],
)
def test_a_file_that_is_no_kubeconfig(status: Status, content: str | bytes, words: str) -> None:
    one_line(status(content), words)


@pytest.mark.parametrize(
    ("command", "words"), [("no-such-plugin", "'no-such-plugin'"), ("/bin/false", "returned 1")]
)
def test_a_login_plugin_that_fails_ends_it(status: Status, command: str, words: str) -> None:
    one_line(status(written(plugin(command))), "login plugin of its user does not work: ")
    one_line(status(written(plugin(command))), words)


def test_a_way_to_log_in_that_is_given_up_ends_it(status: Status) -> None:
    pytest.importorskip("google.auth", reason="the gateway's lock has not the library's extra for it")
    one_line(status(written({"auth-provider": {"name": "gcp", "config": {}}})), "google")


@pytest.mark.parametrize("server", ["", "not a url", "127.0.0.1:6443", "https://", "https://h:port"])
def test_a_server_that_is_no_url(status: Status, server: str) -> None:
    one_line(status(written({"token": "x"}, server)), "is no URL such as https://host:6443")


def test_pem_files_that_are_none(status: Status, tmp_path: Path) -> None:
    (junk := tmp_path / "junk").write_text("junk")
    root = written({"token": "x"}, **{"certificate-authority": str(junk)})
    one_line(status(root), "certificate authority is no certificate in PEM")
    certificate, _ = self_signed(tmp_path)
    pair = {"client-certificate": str(certificate), "client-key": str(junk)}
    one_line(status(written(pair)), "no pair in PEM")


def test_a_good_one_gets_as_far_as_the_server(status: Status, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    pair = {"client-certificate": str(certificate), "client-key": str(key)}
    done = status(written(pair, **{"certificate-authority": str(certificate)}))
    assert done.returncode == exits.UNREACHABLE and "connection refused" in done.stderr
