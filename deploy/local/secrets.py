"""Secrets of a local stack, drawn once and kept, so that keys and data survive `down` and `up`."""

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.local.home import write_private


def _draw() -> str:
    return secrets.token_hex(32)


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    redis_password: str = field(default_factory=_draw)
    key_pepper: str = field(default_factory=_draw)
    link_token: str = field(default_factory=_draw)
    ray_token: str = field(default_factory=_draw)

    @classmethod
    def kept_in(cls, path: Path) -> "Secrets":
        if path.exists():
            return cls(**json.loads(path.read_text()))
        drawn = cls()
        write_private(path, json.dumps(asdict(drawn), indent=1))
        return drawn
