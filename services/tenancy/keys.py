"""API keys: `hr_<env>_<id>_<secret>_<checksum>`. Only a keyed digest of the secret is ever stored.

The checksum lets a mistyped key be refused without a look-up; it is no secret.
"""

import hashlib
import hmac
import random
import re
import zlib
from dataclasses import dataclass, field
from typing import Protocol

from services.core.errors import InvalidRequest, Unauthenticated, Violation
from services.core.request import Scope

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 8, 43, 6  # 43 base62 digits carry 256 bits

KEY = re.compile(
    rf"(hr_([a-z0-9]{{1,16}})_([A-Za-z0-9]{{{ID_LENGTH}}})_([A-Za-z0-9]{{{SECRET_LENGTH}}}))"
    rf"_([A-Za-z0-9]{{{CHECKSUM_LENGTH}}})",
    re.ASCII,
)
TENANT = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
ENV = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
REFUSAL = "the API key is missing or not valid"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key. Times are seconds since the epoch."""

    id: str
    digest: str = field(repr=False)
    tenant: str
    name: str
    env: str
    created: float
    revoked: bool = False
    expires: float | None = None
    scopes: frozenset[Scope] = frozenset()

    def __post_init__(self) -> None:
        if not TENANT.fullmatch(self.tenant):
            raise InvalidRequest(Violation("tenant", f"must match {TENANT.pattern}"))

    def usable(self, now: float) -> bool:
        return not self.revoked and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key as its caller sends it, well formed but not yet believed."""

    env: str
    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key. `text` is shown once, to the person who asked for it."""

    text: str = field(repr=False)
    record: KeyRecord


class KeyStore(Protocol):
    """Where records are kept. Every verb raises StoreAway if the store does not answer."""

    async def put(self, record: KeyRecord) -> None:
        """Keeps the record, replacing one with the same id."""
        ...

    async def get(self, id: str) -> KeyRecord | None: ...

    async def list(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """All records, or one tenant's, oldest first."""
        ...

    async def revoke(self, id: str) -> bool:
        """Marks the key as revoked; False if there is no such key."""
        ...


def unauthenticated() -> Unauthenticated:
    return Unauthenticated(REFUSAL)


def checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def digest(pepper: bytes, secret: str) -> str:
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


def parse(text: str) -> KeyText:
    match = KEY.fullmatch(text)
    if match is None or match[5] != checksum(match[1]):
        raise unauthenticated()
    return KeyText(env=match[2], id=match[3], secret=match[4])


def mint(
    env: str,
    rng: random.Random,
    *,
    tenant: str,
    name: str,
    pepper: bytes,
    now: float,
    expires: float | None = None,
    scopes: frozenset[Scope] = frozenset(),
) -> Minted:
    """A new key for a tenant. `rng` is `secrets.SystemRandom()` outside tests."""
    if not ENV.fullmatch(env):
        raise InvalidRequest(Violation("env", f"must match {ENV.pattern}"))
    id, secret = _digits(rng, ID_LENGTH), _digits(rng, SECRET_LENGTH)
    body = f"hr_{env}_{id}_{secret}"
    record = KeyRecord(
        id, digest(pepper, secret), tenant, name, env, created=now, expires=expires, scopes=scopes
    )
    return Minted(f"{body}_{checksum(body)}", record)


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(count))
