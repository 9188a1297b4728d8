"""The addresses of a store: one server, a master that sentinels know, or a cluster.

    redis://[user:password@]host[:6379][/db]          rediss:// with TLS
    unix://[user:password@]/path/to/socket[?db=0]
    redis+sentinel://[user:password@]host[:26379],host…/NAME[/db]
    redis+cluster://[user:password@]host[:6379],host…

Options after `?`: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (PEM files), `ssl_check_hostname`, `protocol` (2 or
3), `sentinel_username` and `sentinel_password`. The replicas read the same grammar (cluster/serving/lease.py);
tests/unit/store/test_address.py holds both to one table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

URL = re.compile(r"(?:([^:/?#]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
PORT, SENTINEL_PORT = 6379, 26379
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS = frozenset((*FILES, "ssl_check_hostname"))
SENTINEL_OPTIONS = frozenset(("sentinel_username", "sentinel_password"))
OPTIONS = TLS_OPTIONS | SENTINEL_OPTIONS | {"protocol", "db"}
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


class Mode(StrEnum):
    ONE = "one server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Place(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """`places`: servers, sentinels or seeds of a cluster; empty with `path`. `name`: what sentinels call it."""

    mode: Mode
    places: tuple[Place, ...] = ()
    path: str = ""
    name: str = ""
    db: int = 0
    tls: Mapping[str, Any] | None = None  # redis-py's ssl_* options; None: no TLS
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    protocol: int | None = None

    def __str__(self) -> str:
        return self.name or self.path or ",".join(map(str, self.places))


def split(url: str) -> SplitResult:
    """The parts of a URL, by RFC 3986 appendix B. urlsplit refuses a list of hosts with an IPv6 address behind the
    first, in some versions of Python and not in others."""
    scheme, *others = (part or "" for part in URL.fullmatch(url).groups())  # type: ignore[union-attr]  # all match
    return SplitResult(scheme.lower(), *others)


def parse(url: str) -> StoreAddress:
    """Raises ValueError: one line that says what is wrong with the address, without its secrets."""
    parts = split(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a store's address begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    options = _options(parts)
    family, _, kind = parts.scheme.partition("+")
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    mode = Mode(kind) if kind else Mode.ONE
    return StoreAddress(
        mode=mode,
        places=() if family == "unix" else _places(hosts, mode),
        tls=_tls(options) if family == "rediss" else None,
        username=unquote(user) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        protocol=int(options["protocol"]) if "protocol" in options else None,
        **_target(parts, family, mode, options),
    )


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - OPTIONS):
        raise ValueError(
            f"a store's address has no option {unknown[0]}; there are {', '.join(sorted(OPTIONS))}"
        )
    if options.get("protocol", "2") not in ("2", "3"):
        raise ValueError("option protocol is 2 or 3")
    if TLS_OPTIONS & options.keys() and not parts.scheme.startswith("rediss"):
        raise ValueError("the ssl_ options need an address that begins with rediss")
    if SENTINEL_OPTIONS & options.keys() and not parts.scheme.endswith("sentinel"):
        raise ValueError("the sentinel_ options need an address of sentinels")
    return options


def _places(hosts: str, mode: Mode) -> tuple[Place, ...]:
    if mode is Mode.ONE and "," in hosts:
        raise ValueError("several hosts are sentinels or a cluster: redis+sentinel:// or redis+cluster://")
    return tuple(_place(host, SENTINEL_PORT if mode is Mode.SENTINEL else PORT) for host in hosts.split(","))


def _place(text: str, default: int) -> Place:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            "a store's address has a port that is no number from 0 to 65535, or a bracket without the other"
        ) from None
    if not host:
        raise ValueError("a store's address needs a host")
    return Place(host, default if port is None else port)


def _target(parts: SplitResult, family: str, mode: Mode, options: Mapping[str, str]) -> dict[str, Any]:
    """What stands behind the hosts: a socket's path, a master's name, a database."""
    if family == "unix":
        return {"path": unquote(parts.path), "db": _number(options.get("db", ""))}
    steps = [unquote(step) for step in parts.path.split("/") if step]
    name = ""
    if mode is Mode.SENTINEL:
        if not steps:
            raise ValueError("an address of sentinels ends with the name of the master: …/NAME")
        name = steps.pop(0)
    db = _number(steps[0] if steps else options.get("db", ""))
    if mode is Mode.CLUSTER and db:
        raise ValueError("a cluster has database 0 only")
    return {"name": name, "db": db}


def _number(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("the database is a number")
    return int(text or 0)


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    for name in FILES:
        if name in options and not Path(options[name]).is_file():
            raise ValueError(f"option {name} names no file")
    if ("ssl_certfile" in options) != ("ssl_keyfile" in options):
        raise ValueError("ssl_certfile and ssl_keyfile go together")
    check = options.get("ssl_check_hostname", "true").lower() not in ("no", "false", "0")
    return {name: options[name] for name in FILES if name in options} | {"ssl_check_hostname": check}
