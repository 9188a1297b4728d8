"""An operator's mistake ends the process with one line that says what to do, and no traceback."""

import os
import sys
from typing import NoReturn

from pydantic import ValidationError

from services.gateway.settings import GatewaySettings, unknown_variables

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: a restart will not help


def stop_with(reason: str) -> NoReturn:
    print(f"headrace gateway: {reason.splitlines()[0] if reason else 'failed'}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CONFIG)


def load_settings() -> GatewaySettings:
    """The settings, or exit with each wrong one named."""
    if unknown := unknown_variables(os.environ):
        stop_with(f"no such setting: {', '.join(unknown)}; `headrace config` lists those there are")
    try:
        return GatewaySettings()
    except ValidationError as error:
        stop_with("; ".join(_line(problem["loc"], problem["msg"]) for problem in error.errors()))
    except (OSError, ValueError) as error:
        stop_with(f"the file that HEADRACE_CONFIG names cannot be read: {error}")


def _line(location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in location)
    variable = "HEADRACE_" + "__".join(str(part) for part in location).upper()
    return f"setting {name}: {message.lower()} (set {variable} or {name} in the file)"
