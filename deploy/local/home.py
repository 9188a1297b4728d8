"""Where the local stack keeps its state, and its cache of checkpoints."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    root: Path
    cache: Path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Home":
        """HEADRACE_HOME and HEADRACE_CACHE, or the places that the XDG rules give."""
        user = Path(env.get("HOME") or Path.home())
        state = Path(env.get("XDG_STATE_HOME") or user / ".local/state")
        cache = Path(env.get("XDG_CACHE_HOME") or user / ".cache")
        return cls(
            root=Path(env.get("HEADRACE_HOME") or state / "headrace").absolute(),
            cache=Path(env.get("HEADRACE_CACHE") or cache / "headrace").absolute(),
        )

    def make(self) -> None:
        for folder in (self.root, self.logs, self.store, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def record(self) -> Path:
        return self.root / "stack.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def api_key(self) -> Path:
        return self.root / "api-key"

    @property
    def ray_token(self) -> Path:
        return self.root / "ray-token"

    @property
    def store_config(self) -> Path:
        return self.root / "valkey.conf"

    @property
    def engine_config(self) -> Path:
        return self.root / "engine.json"

    @property
    def gateway_config(self) -> Path:
        return self.root / "gateway.toml"


def write_private(path: Path, text: str) -> None:
    """Replaces the file in one step; only its owner can read it at any moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
