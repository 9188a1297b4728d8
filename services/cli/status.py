"""`headrace status`: what the endpoint says of itself, and what is known of the stack on this machine."""

import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from deploy.local import probes, readings
from deploy.local.home import Home
from deploy.local.processes import find
from deploy.local.record import Stack
from services.cli import calls, output, where
from services.cli.exits import FAILED, UNREACHABLE, CliError
from services.cli.settings import effective


@dataclass(slots=True)
class Status:
    endpoint: str
    health: str  # SERVING, NOT_SERVING, or "unknown" for an endpoint that is not of this machine's stack
    store: str
    models: list[dict[str, Any]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)


def show(endpoint: str | None, key_file: Path | None, *, as_json: bool) -> None:
    target = where.find(endpoint, key_file)
    stack = where.load_stack(Home.of(os.environ))
    local = stack if stack and stack.endpoint == target.address else None
    status, code = _status(target, local)
    if as_json:
        output.as_json(asdict(status))
    else:
        _print(status)
    raise typer.Exit(code)


def _status(target: where.Target, stack: Stack | None) -> tuple[Status, int]:
    status = Status(target.address, health="unknown", store="unknown", versions=_versions())
    if stack is not None:
        _local(status, stack)
    code = FAILED if status.trouble else 0
    try:
        models = calls.call(target, lambda client: client.models())
    except CliError as error:
        status.trouble.append(str(error))
        return status, error.code
    status.models = [asdict(model) for model in models]
    asleep = {model.name for model in models if model.scaling and model.scaling.desired == 0}
    served = {model.name for model in models if any(r.connected for r in model.replicas)}
    lonely = [model.name for model in models if model.name not in asleep | served]
    status.trouble += [f"no replica of {name} is connected" for name in lonely]
    return status, UNREACHABLE if lonely else code


def _local(status: Status, stack: Stack) -> None:
    status.health = "SERVING" if probes.serving(stack.health) else "NOT_SERVING"
    url = effective().plain("redis_url")
    status.store = (url and probes.store_version(url)) or "away"
    for process in stack.processes:
        status.processes.append({**asdict(process), "alive": find(process) is not None})
    dead = [process["name"] for process in status.processes if not process["alive"]]
    status.trouble += [f"{name} has ended; run `headrace down`, then `headrace up`" for name in dead]
    status.trouble += ["the store does not answer"] if status.store == "away" else []
    status.trouble += ["the gateway is not serving"] if status.health != "SERVING" else []


def _versions() -> dict[str, str]:
    return {
        "headrace": metadata.version("headrace"),
        "python": platform.python_version(),
        **readings.installed(),
    }


def _print(status: Status) -> None:
    output.table(
        ("ENDPOINT", "HEALTH", "STORE", "VERSIONS"),
        [(status.endpoint, status.health, status.store, _joined(status.versions))],
    )
    if status.models:
        print()
        heads = ("MODEL", "CONTEXT", "REPLICA", "ENGINE", "LINK", "RUNNING", "WAITING", "CAPACITY", "KV USE")
        output.table(heads, (row for model in status.models for row in _rows(model)))
    _print_scaling(status.models)
    if status.processes:
        print()
        rows = ((p["name"], p["pid"], "alive" if p["alive"] else "ended", p["log"]) for p in status.processes)
        output.table(("PROCESS", "PID", "STATE", "LOG"), rows)
    for trouble in status.trouble:
        print(f"\ntrouble: {trouble}")


def _print_scaling(models: list[dict[str, Any]]) -> None:
    """What the autoscaler wants of each model that has one, and its last changes."""
    if scaled := [(model["name"], model["scaling"]) for model in models if model["scaling"]]:
        print()
        rows = ((name, s["current"], s["desired"], _why(s), f"{s['age']:.0f} s ago") for name, s in scaled)
        output.table(("SCALING", "CURRENT", "DESIRED", "WHY", "DECIDED"), rows)
    if changes := [(model["name"], change) for model in models for change in model["changes"]]:
        print()
        ordered = sorted(changes, key=lambda each: each[1]["at"], reverse=True)
        output.table(
            ("CHANGED", "MODEL", "REPLICAS", "BECAUSE OF"),
            ((_when(c["at"]), name, f"{c['before']} -> {c['after']}", c["reason"]) for name, c in ordered),
        )


def _why(scaling: dict[str, Any]) -> str:
    held = scaling["held_because"]
    return f"{scaling['reason']}, held back: {held}" if held else scaling["reason"]


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"


def _rows(model: dict[str, Any]) -> list[tuple[object, ...]]:
    head = (model["name"], model["context_length"])
    return [
        (
            *head,
            r["name"],
            r["engine"],
            _link(r),
            r["running"],
            r["waiting"],
            r["capacity"],
            f"{r['kv_use']:.0%}",
        )
        for r in model["replicas"]
    ] or [(*head, "none", "", "", "", "", "", "")]


def _link(replica: dict[str, Any]) -> str:
    if replica["draining"]:
        return "draining"
    return "up" if replica["connected"] else "down"


def _joined(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
