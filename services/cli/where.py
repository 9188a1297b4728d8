"""Which endpoint and which key a command uses: flags, then the environment, then the stack on this machine."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.home import Home
from deploy.local.record import Stack
from services.cli.exits import UNREACHABLE, USAGE, stop
from services.client import Client, Resume, Tls

AT_ONCE = Resume(first_seconds=0)  # an endpoint that is not there is said to be so
LOOPBACKS = ("localhost", "127.", "[::1]")
# A name or address with its port, or what gRPC resolves, such as dns:///host:port.
ADDRESS = re.compile(
    r"(?:unix|dns|ipv4|ipv6):\S+|(?:\[[^\s\[\]]+\]|[^\s/:\[\]]+)(?::(?P<port>\d{1,5}))?", re.ASCII
)
# Lengths and checksum are for the endpoint to judge: it may be newer than this command.
KEY = re.compile(r"hr_[A-Za-z0-9_]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """`url` is host:port, or with https:// before it for TLS."""

    url: str
    key: str = field(repr=False)
    root: Path | None = None
    pair: tuple[Path, Path] | None = None  # certificate and key, where the endpoint demands one

    @property
    def secure(self) -> bool:
        return self.url.startswith("https://")

    @property
    def address(self) -> str:
        return self.url.removeprefix("https://").removeprefix("http://").rstrip("/")

    @property
    def exposed(self) -> bool:
        """The key would cross a network in the clear."""
        far = [each for each in self.address.split(",") if not each.strip().startswith(LOOPBACKS)]
        return not self.secure and bool(far)

    def client(self, *, timeout: float = 30.0, resume: Resume = AT_ONCE) -> Client:
        certificate, key = self.pair or (None, None)
        tls = Tls(self.root, certificate, key) if self.secure else None
        try:
            return Client(self.address, self.key, tls=tls, timeout=timeout, resume=resume)
        except ValueError as error:
            do = "HEADRACE_CA, HEADRACE_CLIENT_CERTIFICATE and HEADRACE_CLIENT_KEY name PEM files."
            stop(str(error), do if tls else "", code=USAGE)


def find(endpoint: str | None, key_file: Path | None, env: Mapping[str, str] = os.environ) -> Target:
    home = Home.of(env)
    stack = load_stack(home)
    here = stack.endpoint if stack else ""
    url = endpoint or env.get("HEADRACE_ENDPOINT") or here
    if not url:
        do = "Bring one up with `headrace up`, or name one with --endpoint or HEADRACE_ENDPOINT."
        stop("no endpoint is known", do, code=UNREACHABLE)
    root = env.get("HEADRACE_CA")
    # The key of the stack on this machine is for that stack only.
    kept = home.api_key if url == here else None
    target = Target(url, _key(key_file, env, kept), Path(root) if root else None, _pair(env))
    if not all(map(_callable, target.address.split(","))):
        do = "Give host:port, or https://host:port for TLS."
        stop(f"{url} names no endpoint that can be called", do, code=USAGE)
    return target


def _callable(address: str) -> bool:
    """What gRPC can call; what it cannot, it would go on trying."""
    found = ADDRESS.fullmatch(address.strip())
    return found is not None and int(found["port"] or 0) <= 65535


def _pair(env: Mapping[str, str]) -> tuple[Path, Path] | None:
    certificate, key = env.get("HEADRACE_CLIENT_CERTIFICATE"), env.get("HEADRACE_CLIENT_KEY")
    if bool(certificate) != bool(key):
        stop("HEADRACE_CLIENT_CERTIFICATE and HEADRACE_CLIENT_KEY go together", "Set both.", code=USAGE)
    return (Path(certificate), Path(key)) if certificate and key else None


def load_stack(home: Home) -> Stack | None:
    check_home(home)
    try:
        return Stack.load(home.record)
    except ValueError as error:
        stop(str(error), "Move it away after ending what it lists.")


def check_home(home: Home) -> None:
    """It may not be there yet; where it is, it has to be a folder."""
    do = "Set HEADRACE_HOME to a folder that you may write."
    try:
        mode = home.root.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        stop(f"{home.root}: {error.strerror}", do, code=USAGE)
    if not stat.S_ISDIR(mode):
        stop(f"{home.root} is not a folder", do, code=USAGE)


def _key(key_file: Path | None, env: Mapping[str, str], kept: Path | None) -> str:
    if key_file is None and (key := env.get("HEADRACE_API_KEY")):
        return _formed(key, "HEADRACE_API_KEY")
    path = key_file or env.get("HEADRACE_API_KEY_FILE") or kept
    if path is None:
        do = "Set HEADRACE_API_KEY, or HEADRACE_API_KEY_FILE, or give --key-file."
        stop("no API key is known for this endpoint", do, code=USAGE)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        stop(f"the key file {path} cannot be read: {error.strerror}", code=USAGE)
    return _formed(content.decode(errors="replace"), f"the key file {path}")


def _formed(text: str, place: str) -> str:
    """The key, without white space around it. What is in its place instead may be a secret too: it is not shown."""
    key = text.strip()
    if not key:
        stop(f"{place} is empty", "It has to hold an API key: hr_ and what follows, in one line.", code=USAGE)
    if not KEY.fullmatch(key):
        do = "A key is hr_ and letters, digits and _ in one line; `headrace keys create` makes one."
        stop(f"{place} holds no API key", do, code=USAGE)
    return key
