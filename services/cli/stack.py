"""`headrace up` and `headrace down`."""

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from deploy.local import stack
from deploy.local.home import Home
from deploy.local.model import NoSuchModel
from deploy.local.progress import Report
from deploy.local.record import Stack
from deploy.local.run import Wish
from services.cli import where
from services.cli.exits import FAILED, USAGE, CliError

ENGINES = ("vllm", "sim")


def up(
    model: str | None,
    engine: str | None,
    port: int,
    patience: float,
    tensor_parallel: int | None,
    replicas: int,
    workers: int,
    max_replicas: int | None = None,
) -> None:
    if engine is not None and engine not in ENGINES:
        raise CliError(f"no engine {engine!r}", f"Choose one of {', '.join(ENGINES)}.", code=USAGE)
    if max_replicas is not None and max_replicas < replicas:
        raise CliError(f"--max-replicas is below --replicas, which is {replicas}", code=USAGE)
    home, report = Home.of(os.environ), Report(Console(highlight=False))
    where.check_home(home)
    wish = Wish(model, engine, port, patience, tensor_parallel, replicas, workers, max_replicas)
    try:
        running, started = stack.up(wish, home, os.environ, report)
    except NoSuchModel as error:
        raise CliError(str(error), code=USAGE) from error
    except (stack.Refused, ValueError) as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise _no_home(error, home) from error
    except stack.BringUpFailed as error:
        raise CliError(_failure(error), code=FAILED) from error
    report.line(_welcome(running, home, report.elapsed) if started else _already(running))


def _no_home(error: OSError, home: Home) -> CliError:
    advice = "Set HEADRACE_HOME to a folder that you may write."
    return CliError(f"{error.filename or home.root}: {error.strerror}", advice)


def _failure(error: stack.BringUpFailed) -> str:
    cause = error.cause
    lines = [f"stage '{error.stage}' failed; what was started is stopped again", f"  why:  {cause.why}"]
    lines += [f"  log:  {cause.log}"] if cause.log else []
    lines += [f"  do:   {cause.do}"] if cause.do else []
    return "\n".join(lines)


def _welcome(running: Stack, home: Home, seconds: float) -> str:
    command = _command()
    return f"""
Headrace is up after {seconds:.0f} s: {running.model} at {running.endpoint}
  API key: {home.api_key}     metrics: http://{running.metrics}/metrics     logs: {home.logs}

Three things to try:
  {command} chat "What is the capital of France?"
  {command} chat --session new
  {command} status
`{command} down` stops it all."""


def _command() -> str:
    """How to call this command from here: after `make up` it is not on the PATH."""
    own = Path(sys.executable).with_name("headrace")
    if shutil.which("headrace") == str(own):
        return "headrace"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _already(running: Stack) -> str:
    return f"Headrace is already up: {running.model} on {running.engine} at {running.endpoint}; see `headrace status`."


def down() -> None:
    home = Home.of(os.environ)
    where.check_home(home)
    try:
        stopped = stack.down(home)
    except (stack.Refused, ValueError) as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise _no_home(error, home) from error
    print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was up.")
