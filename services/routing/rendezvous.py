"""Consistent hashing without a ring: each key ranks all replicas, each replica by a hash of its own.

Who joins or leaves changes nobody else's rank, so only the keys that it wins or held move; and every gateway
ranks alike without asking another.
"""

import hashlib
from collections.abc import Iterable


def ranked(key: bytes, names: Iterable[str]) -> list[str]:
    """The names, the key's own first."""
    return sorted(names, key=lambda name: hashlib.blake2b(name.encode(), key=key, digest_size=8).digest())
