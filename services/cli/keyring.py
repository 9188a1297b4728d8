"""What `headrace keys` does: records in the gateway's store, made with the gateway's pepper."""

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from deploy.local.home import write_private
from services.cli import output
from services.cli.exits import REFUSED, UNREACHABLE, USAGE, CliError
from services.cli.settings import Effective, effective
from services.core.errors import InvalidRequest, StoreAway
from services.core.request import Scope
from services.store.connect import connect
from services.tenancy.keys import KeyRecord, KeyStore, mint
from services.tenancy.redis import RedisKeyStore

ENV = "live"
TIMEOUT = 5.0  # seconds; a person waits longer than a request
DAY = 86400.0

T = TypeVar("T")


MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Access:
    redis_url: str = field(repr=False)
    key_pepper: bytes = field(repr=False)


def create(
    tenant: str, name: str, days: float | None, scopes: frozenset[Scope], to: Path | None, *, as_json: bool
) -> None:
    if days is not None and not 0 < days <= MAX_DAYS:
        raise CliError(f"--days takes a number above 0, at most {MAX_DAYS}", code=USAGE)
    access, now = _access(), time.time()
    expires = None if days is None else now + days * DAY
    try:
        made = mint(
            ENV, secrets.SystemRandom(), tenant=tenant, name=name, pepper=access.key_pepper, now=now,
            expires=expires, scopes=scopes,
        )  # fmt: skip
    except InvalidRequest as error:
        raise CliError(error.message, code=USAGE) from error
    _with_store(access, lambda store: store.put(made.record))
    if to is not None:
        _write(to, made.text)
        print(f"key {made.record.id} of tenant {tenant} is in {to}")
    elif as_json:
        output.as_json({"key": made.text, **_shown(made.record)})
    else:
        print(made.text)
        print("This is shown once: only a digest of it is kept.", file=sys.stderr)


def show(tenant: str | None, *, as_json: bool) -> None:
    records = _with_store(_access(), lambda store: store.list(tenant))
    if as_json:
        output.as_json([_shown(record) for record in records])
        return
    rows = (_shown(record).values() for record in records)
    output.table(
        ("ID", "TENANT", "NAME", "SCOPES", "STATE", "CREATED (UTC)", "EXPIRES (UTC)"), map(tuple, rows)
    )


def revoke(id: str) -> None:
    if not _with_store(_access(), lambda store: store.revoke(id)):
        raise CliError(f"there is no key {id!r}", "See `headrace keys list`.", code=REFUSED)
    print(f"key {id} is revoked")


def _access() -> Access:
    found = effective()
    return Access(_secret(found, "redis_url"), _secret(found, "key_pepper").encode())


def _secret(found: Effective, name: str) -> str:
    value = found.plain(name)
    if value is None:
        do = f"Set HEADRACE_{name.upper()}, or HEADRACE_CONFIG to the gateway's file."
        raise CliError(f"the setting {name} is not known here", do, code=USAGE)
    return value


def _with_store(access: Access, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    async def session() -> T:
        client = connect(access.redis_url, timeout=TIMEOUT)
        try:
            return await work(RedisKeyStore(client))
        finally:
            await client.aclose()

    try:
        return asyncio.run(session())
    except StoreAway as error:
        raise CliError(error.message, "Check redis_url, and `headrace status`.", code=UNREACHABLE) from error
    except ValueError as error:
        raise CliError(f"redis_url is not a Redis address: {error}", code=USAGE) from error


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text + "\n")
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}", code=USAGE) from error


def _shown(record: KeyRecord) -> dict[str, str]:
    state = "revoked" if record.revoked else "usable" if record.usable(time.time()) else "expired"
    expires = "never" if record.expires is None else _date(record.expires)
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "scopes": " ".join(sorted(record.scopes)),
        "state": state,
        "created": _date(record.created),
        "expires": expires,
    }


def _date(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%F %T}"
    except (ValueError, OverflowError, OSError):
        return "unreadable"
