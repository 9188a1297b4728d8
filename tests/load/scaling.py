"""The day of traffic that README shows: `python -m tests.load.scaling`. Table and plot of the autoscaling laws."""

import json
import subprocess
import sys
from typing import Any

from tests.load.readme import ROOT, table, write_block

PLOT = "cluster/scaling/day.png"
GPUS = 64
DAYS = 5  # the bursts of one are not those of another
COLUMNS = (
    "replicas by",
    "first token in time",
    "TTFT p99 s",
    "GPU-hours",
    "most replicas",
    "changes",
    "refused",
)
TOLD = {
    "headrace": "this law",
    "static": "the peak, all day",
    "serve-requests": "Ray Serve's own law",
    "cpu": "CPU use",
    "kv-only": "KV use alone",
}


def simulated() -> dict[str, Any]:
    argv = [sys.executable, "-m", "services.cli", "simulate-scaling", "--gpus", str(GPUS), "--json"]
    argv += ["--days", str(DAYS)]
    done = subprocess.run([*argv, "--plot", PLOT], cwd=ROOT, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def row(found: dict[str, Any]) -> list[str]:
    return [
        TOLD[found["policy"]],
        f"{min(found['in_budget'], 1):.2%}",
        f"{found['ttft_p99']:.2f}",
        f"{found['gpu_hours']:,.0f}",
        str(found["peak_replicas"]),
        str(found["raised"] + found["lowered"]),
        f"{1 - found['available']:.1%}",
    ]


def main() -> None:
    day = simulated()
    world, budget = day["world"], day["settings"]["ttft_budget_seconds"]
    text = (
        f"Simulated by `make scaling-plot`: mean of {day['days']} days of {day['rows'][0]['turns'] / 1e6:.1f} million "
        f"turns each to {day['model']} on at most {day['gpus']} {day['gpu'].upper()}, "
        f"cold start {world['cold_start_seconds']:g} s, TTFT budget {budget:g} s; the laws of others "
        f"as modelled in `cluster/scaling/simulation/policies.py` ([plot]({PLOT}))."
    )
    write_block("scaling", "\n".join([text, "", *table(COLUMNS, list(map(row, day["rows"])))]))


if __name__ == "__main__":
    main()
