"""The dashboards of what callers get: the whole fleet, a model, a tenant."""

from deploy.observability.grafana import NONE_WANTED, SOME_WANTED, USE, Dashboard, Panel, Row
from deploy.observability.parts import (
    HERE,
    MODEL,
    MODELS,
    NAMESPACES,
    TENANT,
    TENANTS,
    first_token,
    in_time,
    linked,
    outcomes,
    quantiles,
    rate,
    stat,
    succeed,
    tenants,
    tokens,
    total,
    yes_or_no,
)

FULL = f'{TENANT}, outcome="refused_full"'
OF_MODEL = "/d/headrace-model?var-namespace=${__data.fields.namespace}&var-model=${__data.fields.model}"

FLEET = Dashboard(
    "fleet",
    "Fleet",
    "All of an installation on one page.",
    (NAMESPACES,),
    (
        Row(
            "Is it up?",
            (
                succeed(HERE, 5),
                in_time(HERE, 5),
                stat("Gateways up", f'sum(up{{job="headrace-gateway", {HERE}}})', 4, SOME_WANTED),
                linked(HERE, 3),
                yes_or_no("Store answers", f"min(headrace_store_up{{{HERE}}})", 3, SOME_WANTED),
                stat(
                    "Alerts that fire",
                    f'count(ALERTS{{alertstate="firing", {HERE}}}) or vector(0)',
                    4,
                    NONE_WANTED,
                ),
            ),
        ),
        Row("Is it fast?", (outcomes(HERE), first_token(HERE), tokens(HERE))),
        Row(
            "What limits it?",
            (
                Panel(
                    "Turns in flight and their limit",
                    {
                        "in flight": f"sum(headrace_turns_in_flight{{{HERE}}})",
                        "limit": f"sum(headrace_turns_capacity{{{HERE}}})",
                    },
                ),
                Panel(
                    "KV use by model",
                    {"{{model}}": f"avg by (model) (headrace:kv:use{{{HERE}}})"},
                    "percentunit",
                    steps=USE,
                    most=1,
                ),
                Panel(
                    "Waiting in engines by model",
                    {"{{model}}": f"sum by (model) (headrace:engine:waiting{{{HERE}}})"},
                ),
                Panel(
                    "Replicas, desired and running",
                    {
                        "{{model}} desired": f"max by (model) (ray_headrace_scaling_desired{{{HERE}}})",
                        "{{model}} running": f"max by (model) (ray_headrace_scaling_current{{{HERE}}})",
                    },
                ),
                Panel(
                    "Loop lag by gateway",
                    {"{{instance}}": f"max by (instance) (headrace_loop_lag_seconds{{{HERE}}})"},
                    "s",
                    steps=((0.0, "transparent"), (0.25, "red")),
                    help="Worst delay of a worker's event loop: above 250 ms streams stutter.",
                ),
                Panel(
                    "Calls by outcome",
                    {"{{outcome}}": rate("headrace_requests_total", HERE, "outcome")},
                    "reqps",
                    help="All methods, also those that begin no turn.",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Who uses it?",
            (
                Panel(
                    "Models",
                    {
                        "turns/s": f"sum by (namespace, model) (headrace:turns:rate5m{{{HERE}}})",
                        "failed, 1 h": f"max by (namespace, model) (headrace:failure_ratio:1h{{{HERE}}})",
                        "late, 1 h": f"max by (namespace, model) (headrace:late_ratio:1h{{{HERE}}})",
                        "replicas": f"sum by (namespace, model) (headrace:links:up{{{HERE}}})",
                    },
                    kind="table",
                    width=12,
                    link=OF_MODEL,
                ),
                tenants(HERE),
            ),
        ),
    ),
)

OF_ONE = Dashboard(
    "model",
    "Model",
    "One model, over all of its replicas and gateways.",
    (NAMESPACES, MODELS),
    (
        Row(
            "Is it up?",
            (
                succeed(MODEL, 6),
                in_time(MODEL, 6),
                linked(MODEL, 4),
                stat(
                    "Budget's burn, 1 h",
                    f"max(headrace:failure_ratio:1h{{{MODEL}}}) / 0.001",
                    4,
                    ((0.0, "green"), (1.0, "yellow"), (6.0, "red")),
                    "1 spends the error budget in 30 days; at 14.4 it pages.",
                ),
                stat(
                    "Turns held",
                    f"sum(headrace_turns_held{{{MODEL}}})",
                    4,
                    NONE_WANTED,
                    "Turns that wait in gateways for a replica.",
                ),
            ),
        ),
        Row(
            "Is it fast?",
            (
                outcomes(MODEL),
                first_token(MODEL),
                Panel("Between two tokens", quantiles("headrace_inter_token_seconds", MODEL), "s"),
                Panel("Whole turns", quantiles("headrace_turn_seconds", MODEL), "s"),
                Panel(
                    "In the engine's queue",
                    quantiles("headrace_queue_seconds", MODEL),
                    "s",
                    help="Before the first step of a turn.",
                ),
                tokens(MODEL),
            ),
        ),
        Row(
            "What limits it?",
            (
                Panel(
                    "Turns in engines",
                    {
                        "running": f"sum(headrace:engine:running{{{MODEL}}})",
                        "waiting": f"sum(headrace:engine:waiting{{{MODEL}}})",
                    },
                ),
                Panel(
                    "KV use by replica",
                    {"{{replica}}": f"headrace:kv:use{{{MODEL}}}"},
                    "percentunit",
                    steps=USE,
                    most=1,
                ),
                Panel(
                    "Replicas: desired, running, wanted by signal",
                    {
                        "desired": f"sum(max by (namespace, model) (ray_headrace_scaling_desired{{{MODEL}}}))",
                        "running": f"sum(max by (namespace, model) (ray_headrace_scaling_current{{{MODEL}}}))",
                        "wanted for {{signal}}": f"max by (signal) (ray_headrace_scaling_wanted{{{MODEL}}})",
                    },
                ),
                Panel(
                    "Autoscaler holds back",
                    {"{{because}}": f"max by (because) (ray_headrace_scaling_held{{{MODEL}}})"},
                    "bool_yes_no",
                    help="Another number of replicas is wanted, and this is why it is not asked for.",
                    most=1,
                ),
                Panel(
                    "Autoscaler's changes a second",
                    {
                        "{{direction}}: {{reason}}": rate(
                            "ray_headrace_scaling_decisions_total", MODEL, "direction, reason"
                        )
                    },
                ),
                Panel(
                    "Answers that moved, a second",
                    {
                        "after a token: {{cause}}": rate("headrace_migrations_total", MODEL, "cause"),
                        "before: {{cause}}": rate("headrace_reroutes_total", MODEL, "cause"),
                        "replica ejected: {{why}}": rate("headrace_ejections_total", MODEL, "why"),
                    },
                ),
            ),
        ),
        Row(
            "Who uses it, and how?",
            (
                tenants(MODEL),
                Panel(
                    "Why a replica was chosen",
                    {"{{reason}}": rate("headrace_routes_total", MODEL, "reason")},
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Malformed answers a second",
                    {"{{flaw}}: {{action}}": rate("headrace_malformed_total", MODEL, "flaw, action")},
                    help="Answers that broke the model's format, by rule and by what was done.",
                ),
            ),
        ),
    ),
)

OF_TENANT = Dashboard(
    "tenant",
    "Tenant",
    "What a tenant gets and takes. Tenants beyond the first 200 that a gateway sees are `other`.",
    (NAMESPACES, TENANTS),
    (
        Row(
            "Is it served?",
            (
                outcomes(TENANT, "headrace_tenant_turns_total"),
                Panel(
                    "Refused for want of room, a second",
                    {"{{tenant}}": rate("headrace_tenant_turns_total", FULL, "tenant")},
                    help="The gateway, or the tenant's share of it, was full.",
                ),
                Panel(
                    "Turns in flight",
                    {"{{tenant}}": f"sum by (tenant) (headrace_tenant_turns_in_flight{{{TENANT}}})"},
                ),
            ),
        ),
        Row(
            "What does it use?",
            (
                Panel(
                    "Tokens a second by kind",
                    {"{{kind}}": rate("headrace_tenant_tokens_total", TENANT, "kind")},
                ),
                Panel(
                    "Tokens a second by model",
                    {"{{model}}": rate("headrace_tenant_tokens_total", TENANT, "model")},
                    stacked=True,
                ),
                Panel(
                    "Share of all tokens",
                    {
                        "{{tenant}}": f"{rate('headrace_tenant_tokens_total', TENANT, 'tenant')}"
                        f" / on() group_left() {total('headrace_tenant_tokens_total', HERE)}"
                    },
                    "percentunit",
                    most=1,
                    stacked=True,
                ),
                Panel(
                    "Tokens in the last hour",
                    {
                        "tokens": "sum by (tenant, model, kind)"
                        f" (increase(headrace_tenant_tokens_total{{{TENANT}}}[1h]))"
                    },
                    kind="table",
                    width=24,
                ),
            ),
        ),
    ),
)
