"""`make bench`: vLLM in process, vLLM's own server and Headrace, started one after the other, on one micro Llama.

Prints a table, writes it into README.md between its markers, and keeps the raw figures in bench.json.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.engine.launch import LONE_SHARD
from tests.load import subjects
from tests.load.readme import LOAD, ROOT, machine, table, write_block
from tests.load.subjects import Subject

STREAMS = (1, 32, 128)
TOKENS = 100
REPEATS = 5
SETTLE = 2.0  # seconds; vLLM's processes spin for one second after their last step
Row = dict[str, Any]
COLUMNS = (
    "subject", "streams", "tokens/s", "engine side us/token", "gateway us/token",
    "TTFT p50 ms", "TTFT p99 ms", "inter-token p50 ms", "inter-token p99 ms",
)  # fmt: skip

SUBJECTS: dict[str, Callable[[Path], AbstractContextManager[Subject]]] = {
    "inprocess": subjects.in_process,
    "openai": subjects.openai_server,
    "openai-same": partial(subjects.openai_server, executor=LONE_SHARD),
    "headrace": subjects.headrace,
}


def prepare(cache: Path) -> Path:
    smollm2, micro = cache / "smollm2-135m", cache / "micro"
    for module, options in (("smollm2", [str(smollm2)]), ("micro", [str(micro), "--smollm2", str(smollm2)])):
        subprocess.run(
            [sys.executable, "-m", f"cluster.models.{module}", "--to", *options], check=True, cwd=ROOT
        )
    return micro


def measure(subject: Subject, streams: int) -> Row:
    before = subject.cpu()
    result = subject.drive(streams, TOKENS)
    used = {part: seconds - before[part] for part, seconds in subject.cpu().items()}
    micros = {part: seconds / result["tokens"] * 1e6 for part, seconds in used.items()}
    return {
        "subject": subject.name,
        "streams": streams,
        "tokens/s": result["tokens_per_s"],
        "engine side us/token": micros["engine side"],
        "gateway us/token": micros.get("gateway"),
        "TTFT p50 ms": result["ttft"]["p50"] * 1e3,
        "TTFT p99 ms": result["ttft"]["p99"] * 1e3,
        "inter-token p50 ms": result["inter_token"]["p50"] * 1e3,
        "inter-token p99 ms": result["inter_token"]["p99"] * 1e3,
        "messages/token": result["messages"] / result["tokens"],
        "client us/token": result["client_cpu_us_per_token"],
    }


def bench(running: list[Subject], repeats: int) -> list[Row]:
    """All subjects are up and take turns, so that a slow minute of the machine is slow for each of them."""
    for subject in running:
        subject.drive(32, 20)  # warm-up, discarded
    rows: dict[tuple[str, int], list[Row]] = {}
    for _ in range(repeats):
        for streams in STREAMS:
            for subject in running:
                time.sleep(SETTLE)
                rows.setdefault((subject.name, streams), []).append(measure(subject, streams))
    return [typical(rows[subject.name, streams]) for subject in running for streams in STREAMS]


def typical(runs: list[Row]) -> Row:
    """The median of each figure."""
    numbers = {k: median(run[k] for run in runs) for k, v in runs[0].items() if isinstance(v, float)}
    return runs[0] | numbers


def cells(row: Row) -> list[str]:
    return [
        "-" if row[c] is None else f"{row[c]:.1f}" if isinstance(row[c], float) else str(row[c])
        for c in COLUMNS
    ]


def ratios(rows: list[Row]) -> list[str]:
    """Headrace against the others at the largest number of streams."""
    at = {row["subject"]: row for row in rows if row["streams"] == STREAMS[-1]}
    ours = at.pop("Headrace", None)
    if ours is None:
        return []
    cpu = ours["engine side us/token"] + ours["gateway us/token"]
    return [
        f"At {STREAMS[-1]} streams Headrace does {ours['tokens/s'] / other['tokens/s']:.2f} x the tokens/s of {name}"
        f" and takes {cpu / other['engine side us/token']:.2f} x its front-end CPU per token (gateway included)."
        for name, other in at.items()
    ]


def markdown(rows: list[Row]) -> str:
    load = (
        f"micro Llama float32, {TOKENS} tokens a stream, median of {REPEATS} runs, client on the same machine"
    )
    lines = [f"Measured by `make bench` on {machine()}; {load}.", ""]
    lines += table(COLUMNS, [cells(row) for row in rows])
    return "\n".join([*lines, "", *ratios(rows)])


def show(rows: list[Row]) -> None:
    shown = Table(*COLUMNS)
    for row in rows:
        shown.add_row(*cells(row))
    console = Console(width=160)
    console.print(shown)
    for line in ratios(rows):
        console.print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="subjects to run; default all")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/headrace/models")
    chosen = parser.parse_args()
    checkpoint = prepare(chosen.cache)
    with ExitStack() as stack:
        running = []
        for name in chosen.only or SUBJECTS:
            running.append(stack.enter_context(SUBJECTS[name](checkpoint)))
            print(f"{running[-1].name} is up", flush=True)
        rows = bench(running, chosen.repeats)
    show(rows)
    if not chosen.only:
        (ROOT / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")
        write_block("bench", markdown(rows), LOAD)
        most = [row for row in rows if row["streams"] == STREAMS[-1] and "our executor" not in row["subject"]]
        write_block("bench", markdown(most))


if __name__ == "__main__":
    main()
