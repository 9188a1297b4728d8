"""What a session's values pass on their way to the store and back.

With a master key each session has a data key of its own. The store keeps it wrapped, by a key that is derived
from the master for the tenant, under its own Redis key; without it the values of the session are noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

from services.core.clock import random_bytes
from services.core.errors import Internal
from services.store.cipher import KEY_BYTES, AesGcm, Cipher, Plain, about, derive


@dataclass(frozen=True, slots=True)
class Seal:
    """Binds each value to the tenant, the session and its position there."""

    cipher: Cipher
    tenant: str
    id: str

    def put(self, value: bytes, kind: str, position: int = 0) -> bytes:
        return self.cipher.seal(value, about(self.tenant, self.id, kind, position))

    def take(self, value: bytes, kind: str, position: int = 0) -> bytes:
        """Raises Unreadable."""
        return self.cipher.open(value, about(self.tenant, self.id, kind, position))


class Vault:
    """Makes and opens data keys. Without a master key everything is plain."""

    def __init__(self, master: bytes = b"", random: Callable[[int], bytes] = random_bytes) -> None:
        self._master = master
        self._random = random

    @property
    def seals(self) -> bool:
        return bool(self._master)

    def begin(self, tenant: str, id: str) -> tuple[Seal, bytes]:
        """The seal of a new session, and its wrapped data key; empty if it is plain."""
        if not self._master:
            return Seal(Plain(), tenant, id), b""
        key = self._random(KEY_BYTES)
        wrapped = self._wrapper(tenant).seal(key, about(tenant, id, "key"))
        return Seal(AesGcm(key, self._random), tenant, id), wrapped

    def open(self, tenant: str, id: str, wrapped: bytes) -> Seal:
        """The seal of a session that has this wrapped data key. Raises Internal if it cannot be opened."""
        if not wrapped:
            return Seal(Plain(), tenant, id)
        if not self._master:
            raise Internal("the session is encrypted, and this gateway has no master key")
        key = self._wrapper(tenant).open(wrapped, about(tenant, id, "key"))
        return Seal(AesGcm(key, self._random), tenant, id)

    def _wrapper(self, tenant: str) -> Cipher:
        return AesGcm(derive(self._master, "session", tenant), self._random)
