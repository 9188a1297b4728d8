"""Values that the store keeps but cannot read: AES-256-GCM, bound to what they are about.

A sealed value is a version byte, a random nonce of 12 bytes, the ciphertext and its tag of 16. Random nonces
allow 2**32 values under one key, so keys are derived or made for something small: a session, a turn.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.core.clock import random_bytes
from services.core.errors import Internal

KEY_BYTES = 32
NONCE_BYTES = 12
VERSION = b"\x01"


class Unreadable(Internal):
    """A sealed value that this key does not open: another key, another place, or not what was sealed."""

    def __init__(self) -> None:
        super().__init__("what the store keeps cannot be read with this key")


class Cipher(Protocol):
    def seal(self, data: bytes, about: bytes) -> bytes:
        """`about` says what the value is and where it stands; it is not kept, and opens nothing else."""
        ...

    def open(self, data: bytes, about: bytes) -> bytes:
        """What was sealed. Raises Unreadable."""
        ...


class Plain:
    """Where no master key is configured: values stay as they are."""

    def seal(self, data: bytes, about: bytes) -> bytes:
        return data

    def open(self, data: bytes, about: bytes) -> bytes:
        return data


class AesGcm:
    def __init__(self, key: bytes, random: Callable[[int], bytes] = random_bytes) -> None:
        """`key`: 32 bytes, else ValueError. `random` gives so many unguessable bytes."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._gcm = AESGCM(key)
        self._random = random

    def seal(self, data: bytes, about: bytes) -> bytes:
        nonce = self._random(NONCE_BYTES)
        return VERSION + nonce + self._gcm.encrypt(nonce, data, about)

    def open(self, data: bytes, about: bytes) -> bytes:
        version, nonce, sealed = data[:1], data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        if version != VERSION or len(nonce) < NONCE_BYTES:
            raise Unreadable
        try:
            return self._gcm.decrypt(nonce, sealed, about)
        except InvalidTag:
            raise Unreadable from None


def derive(master: bytes, purpose: str, *names: str) -> bytes:
    """A key of 32 bytes for one purpose and, say, one tenant (and turn): HKDF-SHA256.

    The same arguments give the same key; no key says anything of the master or of another one.
    """
    info = about("headrace", purpose, *names)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(master)


def master_key(text: str) -> bytes:
    """The key that base64 text stands for. Raises ValueError, without repeating it, unless it has 32 bytes."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"stands for {len(key)} bytes, not {KEY_BYTES}")
    return key


def about(*parts: str | int) -> bytes:
    """Names a place so that no two lists of parts give the same bytes."""
    encoded = [str(part).encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
