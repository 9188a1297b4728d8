"""What a survey of a cluster found: its Ray nodes and its store. Reading is elsewhere; judge.py judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One Ray node. Sizes are bytes, times seconds."""

    address: str
    head: bool
    python: str
    packages: Mapping[str, str]
    gpus: tuple[str, ...]  # names, as the driver gives them
    drivers: frozenset[str]
    ray_gpus: float  # that Ray may hand out
    environment: Mapping[str, str]  # NCCL_* and GLOO_*
    interfaces: frozenset[str]
    shm_total: int
    niceness: int
    skew: float  # of its clock against that of whoever asked
    skew_error: float  # the skew is known so well

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "NodeFacts":
        """From what `python -m cluster.serving.survey` prints of a node. Raises KeyError."""
        return cls(
            address=found["address"],
            head=found["head"],
            python=found["python"],
            packages=found["packages"],
            gpus=tuple(gpu["name"] for gpu in found["gpus"]),
            drivers=frozenset(gpu["driver"] for gpu in found["gpus"]),
            ray_gpus=found["ray_gpus"],
            environment=found["environment"],
            interfaces=frozenset(found["interfaces"]),
            shm_total=found["shm_total"],
            niceness=found["niceness"],
            skew=found["skew_s"],
            skew_error=found["skew_error_s"],
        )


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """One master of the store. `skew` is its clock against ours, seconds."""

    server: str
    version: str
    policy: str  # maxmemory-policy
    append_only: bool
    replicas: int
    memory_share: float  # of maxmemory that is in use; 0 without a limit
    skew: float
    skew_error: float
    full_coverage: bool = False  # of a cluster: one lost shard stops all


@dataclass(frozen=True, slots=True)
class Survey:
    """`away` says in a line why a part could not be read; a part is empty then."""

    nodes: tuple[NodeFacts, ...] = ()
    stores: tuple[StoreFacts, ...] = ()
    away: Mapping[str, str] = field(default_factory=dict)
