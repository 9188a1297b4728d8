"""Findings of a run, and the table that they become. `python -m tests.faults.table FINDINGS [--keep]`."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.load.readme import machine, table, write_block

COLUMNS = ("fault", "what fails", "promises", "proof that it did", "turns", "measured")
TITLES = {
    "F1": "engine core killed (vLLM)",
    "F2": "a tensor-parallel rank killed (vLLM)",
    "F3": "engine frozen or mute",
    "F4": "replica process killed",
    "F5": "replica drained under load",
    "F6": "Ray node lost",
    "F7": "Ray's GCS frozen, then killed",
    "F8": "gateway killed at ten instants",
    "F9": "gateway SIGTERM",
    "F10": "gateway's event loop blocked",
    "F11": "store's primary killed, replica promoted",
    "F12": "replication stalled, then F11",
    "F13": "old primary returns",
    "F14": "store frozen 10 s",
    "F15": "store emptied, scripts gone, memory full",
    "F16": "replies of the store lost",
    "F17": "client cut off without a word",
    "F18": "slow link, reader that never reads",
    "F19": "storms: overload, cancels, one key 20 times",
    "F20": "wall clock an hour off",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One test's: the fault that was proven, the promises that were checked and held, over so many turns.
    `figures` are worst cases, by name."""

    fault: str
    promises: tuple[str, ...]
    proof: str
    turns: int
    figures: Mapping[str, float] = field(default_factory=dict)


def note(finding: Finding) -> None:
    """Adds to the file that FAULT_FINDINGS names, if it does."""
    if path := os.environ.get("FAULT_FINDINGS"):
        with Path(path).open("a") as file:
            file.write(json.dumps(asdict(finding)) + "\n")


def read(path: Path) -> list[Finding]:
    told = (json.loads(line) for line in path.read_text().splitlines())
    return [Finding(**line | {"promises": tuple(line["promises"])}) for line in told]


def rows(findings: Iterable[Finding]) -> list[list[str]]:
    """One for each fault, over all of its findings."""
    by_fault: dict[str, list[Finding]] = {}
    for finding in findings:
        by_fault.setdefault(finding.fault, []).append(finding)
    return [_row(fault, by_fault[fault]) for fault in sorted(by_fault, key=lambda fault: int(fault[1:]))]


def _row(fault: str, findings: list[Finding]) -> list[str]:
    promises = sorted({promise for one in findings for promise in one.promises}, key=lambda p: int(p[1:]))
    figures: dict[str, float] = {}
    for one in findings:
        for what, value in one.figures.items():
            figures[what] = max(value, figures.get(what, value))
    told = "; ".join(f"{what} {value:.3g}" for what, value in figures.items())
    proofs = "; ".join(dict.fromkeys(one.proof for one in findings))
    turns = sum(one.turns for one in findings)
    return [fault, TITLES[fault], " ".join(promises), f"{proofs} ({len(findings)}x)", str(turns), told]


def written(findings: Iterable[Finding]) -> str:
    head = f"Measured by `make faults` on {machine()}. Worst cases; every row's promises held for all of its turns."
    return "\n".join([head, "", *table(COLUMNS, rows(findings))])


def main() -> None:
    text = written(read(Path(sys.argv[1])))
    print(text)
    if "--keep" in sys.argv:
        write_block("faults", text, Path(__file__).with_name("TABLE.md"))


if __name__ == "__main__":
    main()
