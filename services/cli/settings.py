"""The gateway's settings as this shell would give them, each with its origin."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deploy.local.home import Home
from services.cli.exits import USAGE, CliError
from services.gateway.settings import GatewaySettings, unknown_variables

MASK = "********"
PREFIX = "HEADRACE_"


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    value: Any  # None with the origin "missing"
    origin: str  # default, env NAME, file PATH or missing
    secret: bool
    about: str

    @property
    def shown(self) -> Any:
        return MASK if self.secret and self.value is not None else self.value


@dataclass(frozen=True, slots=True)
class Effective:
    settings: tuple[Setting, ...]
    file: Path | None

    def plain(self, name: str) -> str | None:
        """The value, unmasked."""
        value = next(setting.value for setting in self.settings if setting.name == name)
        return None if value is None else str(value)


def effective(env: Mapping[str, str] = os.environ) -> Effective:
    """The file is the one that HEADRACE_CONFIG names, else the local stack's."""
    path = _file(env)
    filed = {} if path is None else _read(path)
    fields = GatewaySettings.model_fields
    if unknown := sorted(set(filed) - set(fields)):
        raise CliError(f"{path} has unknown settings: {', '.join(unknown)}", code=USAGE)
    if unknown := unknown_variables(env):
        raise CliError(f"no such setting: {', '.join(unknown)}", code=USAGE)
    return Effective(tuple(_setting(name, fields[name], env, filed, path) for name in fields), path)


def _file(env: Mapping[str, str]) -> Path | None:
    if named := env.get("HEADRACE_CONFIG"):
        return Path(named)
    local = Home.of(env).gateway_config
    return local if local.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}", code=USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is not UTF-8, as TOML is", code=USAGE) from error
    except tomllib.TOMLDecodeError as error:
        raise CliError(f"{path} is not TOML: {error}", code=USAGE) from error


def _setting(
    name: str, field: FieldInfo, env: Mapping[str, str], filed: Mapping[str, Any], path: Path | None
) -> Setting:
    secret = SecretStr in (field.annotation, *get_args(field.annotation))
    about = field.description or ""
    variable = PREFIX + name.upper()
    nested = {key: value for key, value in env.items() if key.startswith(f"{variable}__")}
    if variable in env:
        return Setting(name, env[variable], f"env {variable}", secret, about)
    if nested:
        return Setting(name, nested, f"env {', '.join(nested)}", secret, about)
    if name in filed:
        return Setting(name, filed[name], f"file {path}", secret, about)
    if field.default is PydanticUndefined:
        return Setting(name, None, "missing", secret, about)
    return Setting(name, _plain(field.default), "default", secret, about)


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def wrong_values(found: Effective) -> list[str]:
    """One line for each value that a gateway would refuse; a setting that is missing is not wrong yet."""
    if found.file is not None:
        os.environ.setdefault("HEADRACE_CONFIG", str(found.file))
    try:
        GatewaySettings()
    except ValidationError as error:
        problems = (problem for problem in error.errors() if problem["type"] != "missing")
        return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}" for problem in problems]
    return []
