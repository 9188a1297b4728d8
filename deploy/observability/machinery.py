"""The dashboards of what serves: the engines with vLLM, and the store."""

from deploy.observability.grafana import NONE_WANTED, SOME_WANTED, USE, Dashboard, Panel, Row
from deploy.observability.parts import (
    HERE,
    LATELY,
    MODEL,
    MODELS,
    NAMESPACES,
    REPLICA,
    REPLICAS,
    linked,
    quantiles,
    rate,
    stat,
    total,
    yes_or_no,
)


def by_replica(title: str, metric: str, unit: str = "short", most: float | None = None) -> Panel:
    expr = f"max by (replica) (ray_headrace_replica_{metric}{{{REPLICA}}})"
    return Panel(title, {"{{replica}}": expr}, unit, steps=USE if most else (), most=most)


def vllm(title: str, metric: str, unit: str = "short", most: float | None = None) -> Panel:
    expr = f"headrace:vllm:{metric}{{{MODEL}}}"
    return Panel(title, {"{{model}}": expr}, unit, most=most)


ENGINE = Dashboard(
    "engine",
    "Engine",
    "Replicas, as they report themselves, the links to them, and vLLM within.",
    (NAMESPACES, MODELS, REPLICAS),
    (
        Row(
            "Are they up?",
            (
                linked(MODEL, 6),
                stat(
                    "Replicas that drain",
                    f"sum(max by (namespace, model, replica) (ray_headrace_replica_draining{{{REPLICA}}}))",
                    6,
                    NONE_WANTED,
                ),
                stat(
                    "Replicas with failed canaries, 1 h",
                    f"count(max by (namespace, model, replica) (max_over_time("
                    f"ray_headrace_replica_canary_failures_total{{{REPLICA}}}[1h])) > 0)",
                    6,
                    NONE_WANTED,
                ),
                stat(
                    "Links broken, 1 h",
                    f"sum(increase(headrace_link_reconnects_total{{{REPLICA}}}[1h]))",
                    6,
                    NONE_WANTED,
                ),
            ),
        ),
        Row(
            "Are they fast?",
            (
                Panel(
                    "Tokens a second by replica",
                    {"{{replica}}": rate("ray_headrace_replica_tokens_total", REPLICA, "replica")},
                ),
                Panel(
                    "Steps a second by replica",
                    {"{{replica}}": rate("ray_headrace_replica_steps_total", REPLICA, "replica")},
                ),
                Panel(
                    "Round trip of links",
                    {"{{replica}}": f"max by (replica) (headrace_link_round_trip_seconds{{{REPLICA}}})"},
                    "s",
                ),
                Panel(
                    "Loading a replica",
                    {
                        "{{model}}": "histogram_quantile(0.5, sum by (model, le)"
                        f" (ray_headrace_replica_load_seconds_bucket{{{REPLICA}}}))"
                    },
                    "s",
                    help="From its start to its first token, median of those that run: how long a new one takes.",
                ),
            ),
        ),
        Row(
            "What limits them?",
            (
                by_replica("Running by replica", "running"),
                by_replica("Waiting by replica", "waiting"),
                by_replica("KV use by replica", "kv_use", "percentunit", 1),
                by_replica("Prompt tokens that wait", "queued_tokens"),
                by_replica("Gateways connected", "links"),
                Panel(
                    "Share of turns accepted at most",
                    {
                        "{{replica}}": "sum by (replica) ("
                        f"ray_headrace_replica_running{{{REPLICA}}} + ray_headrace_replica_waiting{{{REPLICA}}})"
                        f" / sum by (replica) (ray_headrace_replica_capacity{{{REPLICA}}})"
                    },
                    "percentunit",
                    steps=USE,
                    most=1,
                ),
            ),
        ),
        Row(
            "vLLM",
            (
                vllm("Requests running", "running"),
                vllm("Requests waiting", "waiting"),
                vllm("KV cache in use", "kv_use", "percentunit", 1),
                vllm("Prompt tokens a second", "prompt_tokens:rate5m"),
                vllm("Tokens sampled a second", "generation_tokens:rate5m"),
                vllm("Prefix cache hits", "prefix_hits:ratio5m", "percentunit", 1),
                vllm("In vLLM's queue, p95", "queue_seconds:p95", "s"),
                vllm("Preemptions a second", "preemptions:rate5m"),
            ),
        ),
    ),
)

STORE = Dashboard(
    "store",
    "Store",
    "Redis or Valkey as the gateways see it; below, as redis_exporter does, where it is scraped.",
    (NAMESPACES,),
    (
        Row(
            "Is it up?",
            (
                yes_or_no("Answers all gateways", f"min(headrace_store_up{{{HERE}}})", 6, SOME_WANTED),
                stat(
                    "Breakers open",
                    f"count(headrace_store_breaker_open{{{HERE}}} == 1) or vector(0)",
                    6,
                    NONE_WANTED,
                    "Servers to which calls end at once, because they did not answer.",
                ),
                stat(
                    "Turns unkept, 1 h",
                    f"sum(increase(headrace_turns_unkept_total{{{HERE}}}[1h]))",
                    6,
                    NONE_WANTED,
                ),
                stat(
                    "Turns taken over, 1 h",
                    f"sum(increase(headrace_takeovers_total{{{HERE}}}[1h]))",
                    6,
                    NONE_WANTED,
                ),
            ),
        ),
        Row(
            "Is it fast?",
            (
                Panel("Calls", quantiles("headrace_store_seconds", HERE), "s"),
                Panel(
                    "p99 by operation",
                    {
                        "{{operation}}": "histogram_quantile(0.99, sum by (operation, le)"
                        f" (rate(headrace_store_seconds_bucket{{{HERE}}}{LATELY})))"
                    },
                    "s",
                ),
                Panel(
                    "Calls a second by operation",
                    {"{{operation}}": rate("headrace_store_seconds_count", HERE, "operation")},
                    "ops",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "What is behind, or was lost?",
            (
                Panel(
                    "Events that the store has not",
                    {"{{instance}}": f"max by (instance) (headrace_journal_lag_events{{{HERE}}})"},
                ),
                Panel(
                    "Session writes by outcome",
                    {
                        "{{outcome}}": rate("headrace_session_writes_total", HERE, "outcome"),
                        "held by another turn": total("headrace_session_busy_total", HERE),
                    },
                    "ops",
                ),
                Panel(
                    "Turns that changed hands, a second",
                    {
                        "taken over": total("headrace_takeovers_total", HERE),
                        "lost to another gateway": total("headrace_turns_fenced_total", HERE),
                        "streams read on": total("headrace_resumes_total", HERE),
                        "readers rewound": total("headrace_rewinds_total", HERE),
                        "calls repeated": total("headrace_repeats_total", HERE),
                    },
                ),
            ),
        ),
        Row(
            "The server (redis_exporter)",
            (
                Panel(
                    "Memory in use",
                    {
                        "{{instance}}": f"redis_memory_used_bytes{{{HERE}}}",
                        "{{instance}} at most": f"redis_memory_max_bytes{{{HERE}}}",
                    },
                    "bytes",
                ),
                Panel(
                    "Commands a second",
                    {"{{instance}}": rate("redis_commands_processed_total", HERE, "instance")},
                    "ops",
                ),
                Panel(
                    "Keys evicted a second",
                    {"{{instance}}": rate("redis_evicted_keys_total", HERE, "instance")},
                    "ops",
                ),
                Panel("Clients", {"{{instance}}": f"redis_connected_clients{{{HERE}}}"}),
                Panel("Replicas connected", {"{{instance}}": f"redis_connected_slaves{{{HERE}}}"}),
                Panel(
                    "Append-only file is written",
                    {"{{instance}}": f"redis_aof_last_write_status{{{HERE}}}"},
                    "bool_yes_no",
                    most=1,
                ),
            ),
        ),
    ),
)
