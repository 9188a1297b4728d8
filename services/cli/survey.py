"""`headrace doctor --cluster`: the Ray nodes and the store of a running cluster."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import typer

from deploy.local.doctor import Check
from deploy.local.home import Home
from deploy.survey.facts import NodeFacts, StoreFacts, Survey
from deploy.survey.judge import examine
from services.cli import output, where
from services.cli.exits import FAILED
from services.cli.settings import effective
from services.core.errors import HeadraceError, StoreAway
from services.store.connect import connect, store_errors
from services.store.node import Node

READER = "cluster.serving.survey"  # a process of its own: the command never loads Ray
PATIENCE = 180.0  # seconds
TIMEOUT = 5.0  # seconds of a call to the store
IN_THE_HEAD = "run it in the pod of Ray's head: kubectl exec POD -c ray-head -- headrace doctor --cluster"
NOT_ALLOWED = "has no permissions"  # as Redis and Valkey say it
RIGHTS = "set HEADRACE_REDIS_URL to a user with +info +time, in a cluster +config|get too; replicas' users lack them"


def show(*, as_json: bool) -> None:
    nodes, no_ray = read_nodes(os.environ)
    stores, no_store = read_stores()
    away = {part: why for part, why in (("ray", no_ray), ("store", no_store)) if why}
    checks = [clearer(check) for check in examine(Survey(nodes, stores, away))]
    if as_json:
        output.as_json([asdict(check) for check in checks])
    else:
        rows = ((check.name, check.verdict, check.found, check.advice) for check in checks)
        output.table(("CHECK", "VERDICT", "FOUND", "WHAT TO DO"), rows)
    if any(check.verdict == "fail" for check in checks):
        raise typer.Exit(FAILED)


def clearer(check: Check) -> Check:
    """What could not be asked from here, and says nothing about the cluster, with what to do about that."""
    if check.name == "ray" and check.verdict == "fail" and "No module named" in check.found:
        missing = check.found.rpartition("No module named ")[2].strip("').")
        found = f"Ray is not installed in this environment: no module {missing}"
        return replace(check, found=found, advice=IN_THE_HEAD)
    if check.name == "store" and check.verdict == "fail" and NOT_ALLOWED in check.found:
        return replace(check, verdict="warn", found=f"not allowed to ask: {check.found}", advice=RIGHTS)
    return check


def read_nodes(env: Mapping[str, str]) -> tuple[tuple[NodeFacts, ...], str]:
    """The living Ray nodes; or none, and why not."""
    try:
        told = subprocess.run(  # noqa: S603 - argv is ours
            [sys.executable, "-m", READER], env=ray_environment(env), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return (), f"no answer after {PATIENCE:.0f} s"
    if told.returncode != 0:
        return (), last_line(told.stderr).removeprefix(f"{READER}: ")
    return tuple(map(NodeFacts.read, json.loads(last_line(told.stdout)))), ""


def ray_environment(env: Mapping[str, str]) -> dict[str, str]:
    """As it is; where it names no Ray, that of the stack on this machine."""
    home = Home.of(env)
    stack = None if "RAY_ADDRESS" in env else where.load_stack(home)
    if stack is None:
        return dict(env)
    return {
        **env,
        "RAY_ADDRESS": stack.ray,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home.ray_token),
    }


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def read_stores() -> tuple[tuple[StoreFacts, ...], str]:
    url = effective().plain("redis_url")
    try:
        return asyncio.run(ask_stores(url or "")), ""
    except StoreAway as error:
        return (), str(error.__cause__ or error)
    except (HeadraceError, ValueError) as error:
        return (), str(error)


async def ask_stores(url: str) -> tuple[StoreFacts, ...]:
    """Raises StoreAway, Internal, or ValueError for an address that cannot be read."""
    client = connect(url, timeout=TIMEOUT)
    try:
        async with store_errors():
            return tuple([await ask_store(node) for node in await client.masters()])
    finally:
        await client.aclose()


async def ask_store(node: Node) -> StoreFacts:
    told: dict[str, Any] = {}
    for section in ("server", "memory", "persistence", "replication", "cluster"):
        told |= await node.info(section)
    skew, error = await clock(node)
    limit = told.get("maxmemory", 0)
    name = told.get("server_name", "redis")
    return StoreFacts(
        server=place(node),
        version=f"{name} {told.get(f'{name}_version', told.get('redis_version', '?'))}",
        policy=str(told.get("maxmemory_policy", "unknown")),
        append_only=bool(told.get("aof_enabled")),
        replicas=int(told.get("connected_slaves", 0)),
        memory_share=told.get("used_memory", 0) / limit if limit else 0.0,
        skew=skew,
        skew_error=error,
        full_coverage=bool(told.get("cluster_enabled")) and await full_coverage(node),
    )


async def clock(node: Node) -> tuple[float, float]:
    """The server's clock against ours, and what half a round trip may hide; seconds."""
    sent = time.time()
    seconds, micros = await node.time()
    received = time.time()
    return seconds + micros / 1e6 - (sent + received) / 2, (received - sent) / 2


async def full_coverage(node: Node) -> bool:
    told = await node.config_get("cluster-require-full-coverage")
    return str(told.get("cluster-require-full-coverage", "yes")) == "yes"


def place(node: Node) -> str:
    options = node.connection_pool.connection_kwargs
    return (
        f"{options['host']}:{options['port']}"
        if "host" in options
        else str(options.get("path", "the master"))
    )
