"""Every metric that replicas and the autoscaler export through Ray, named once. Standard library only: the replica,
the autoscaler's policy and the gateway's list of names read this table.

Prometheus sees each with the prefix `ray_`, on the metrics port of the Ray node, within Ray's report interval (10 s
unless RAY_metrics_report_interval_ms says otherwise), with labels of Ray's own beside ours.
"""

from dataclasses import dataclass
from typing import Literal

PREFIX = "ray_"


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is as it is given to Ray, without the prefix; a histogram's `buckets` are upper bounds."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


OF_REPLICA = ("model", "replica")
LOADING = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200)  # seconds

RUNNING = Metric("headrace_replica_running", "gauge", OF_REPLICA, "Turns in the engine's batch")
WAITING = Metric("headrace_replica_waiting", "gauge", OF_REPLICA, "Turns in the engine's queue")
KV_USE = Metric("headrace_replica_kv_use", "gauge", OF_REPLICA, "Share of KV blocks in use, 0..1")
QUEUED_TOKENS = Metric(
    "headrace_replica_queued_tokens", "gauge", OF_REPLICA, "Prompt tokens not yet prefilled"
)
CAPACITY = Metric(
    "headrace_replica_capacity", "gauge", OF_REPLICA, "Turns accepted at most, running and waiting"
)
LINKS = Metric("headrace_replica_links", "gauge", OF_REPLICA, "Gateways that are connected")
DRAINING = Metric("headrace_replica_draining", "gauge", OF_REPLICA, "1 while no new turns are taken")
STEPS = Metric("headrace_replica_steps_total", "counter", OF_REPLICA, "Engine steps that had output")
TOKENS = Metric("headrace_replica_tokens_total", "counter", OF_REPLICA, "Tokens sampled")
LOAD = Metric(
    "headrace_replica_load_seconds",
    "histogram",
    OF_REPLICA,
    "From the start of a replica to its first token: what a new one costs",
    LOADING,
)
CANARY_FAILURES = Metric(
    "headrace_replica_canary_failures_total", "counter", OF_REPLICA, "Canaries that the engine failed"
)

DESIRED = Metric("headrace_scaling_desired", "gauge", ("model",), "Replicas that the autoscaler asks for")
CURRENT = Metric("headrace_scaling_current", "gauge", ("model",), "Replicas that run")
WANTED = Metric(
    "headrace_scaling_wanted",
    "gauge",
    ("model", "signal"),
    "Replicas that each signal alone would ask for: turns, prefill, kv, held",
)
HELD = Metric(
    "headrace_scaling_held", "gauge", ("model", "because"), "1 while a wanted change is held back, by why"
)
DECISIONS = Metric(
    "headrace_scaling_decisions_total",
    "counter",
    ("model", "direction", "reason"),
    "Changes of the number of replicas asked for",
)
STALE = Metric(
    "headrace_scaling_stale_replicas", "gauge", ("model",), "Replicas whose statistics are missing or old"
)

REPLICA = (
    RUNNING, WAITING, KV_USE, QUEUED_TOKENS, CAPACITY, LINKS, DRAINING, STEPS, TOKENS, LOAD, CANARY_FAILURES,
)  # fmt: skip
SCALING = (DESIRED, CURRENT, WANTED, HELD, DECISIONS, STALE)
ALL = REPLICA + SCALING
