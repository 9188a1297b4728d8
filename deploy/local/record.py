"""What runs: `stack.json`, written after every start, so that an `up` cut off anywhere can be taken down."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.local.home import write_private

MARK = "HEADRACE_STACK"  # in the environment of everything that a stack starts, and of their children


@dataclass(frozen=True, slots=True)
class Process:
    """`created` tells the process from a later one that got the same pid."""

    name: str
    pid: int
    created: float
    log: str


@dataclass(slots=True)
class Stack:
    id: str
    model: str
    asked_model: str | None  # None: the machine's default
    checkpoint: str
    engine: str
    endpoint: str = ""
    health: str = ""
    metrics: str = ""
    store: str = ""
    ray: str = ""
    ray_metrics: str = ""  # of Ray, the replicas and vLLM, for Prometheus
    scratch: str = ""  # Ray's folder for sockets and logs
    complete: bool = False
    processes: list[Process] = field(default_factory=list)

    def save(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Stack | None":
        """None if there is no record. ValueError if the file is not one."""
        try:
            fields = json.loads(path.read_text())
            processes = [Process(**process) for process in fields.pop("processes")]
            if not all(isinstance(process.pid, int) for process in processes):
                raise TypeError
            return cls(**fields, processes=processes)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged: move it away. What it listed may still run: "
                f"those processes have {MARK} in their environment"
            ) from error
