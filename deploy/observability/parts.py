"""Selectors and panels that several dashboards have."""

from deploy.observability.grafana import LATE, OBJECTIVE, SOME_WANTED, Panel, Variable

HERE = 'namespace=~"$namespace"'
MODEL = f'{HERE}, model=~"$model"'
REPLICA = f'{MODEL}, replica=~"$replica"'
TENANT = f'{HERE}, tenant=~"$tenant"'
LATELY = "[$__rate_interval]"

NAMESPACES = Variable("namespace", 'up{job=~"headrace-.+"}', "namespace")
MODELS = Variable("model", f"headrace_link_up{{{HERE}}}", "model")
REPLICAS = Variable("replica", f"ray_headrace_replica_capacity{{{MODEL}}}", "replica")
TENANTS = Variable("tenant", f"headrace_tenant_turns_total{{{HERE}}}", "tenant")


def rate(metric: str, where: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}{LATELY}))"


def total(metric: str, where: str) -> str:
    return f"sum(rate({metric}{{{where}}}{LATELY}))"


def quantiles(metric: str, where: str) -> dict[str, str]:
    """The median, and what one in twenty and one in a hundred exceeds."""
    buckets = f"sum by (le) (rate({metric}_bucket{{{where}}}{LATELY}))"
    return {f"p{q}": f"histogram_quantile(0.{q}, {buckets})" for q in (50, 95, 99)}


def stat(title: str, expr: str, width: int, steps: tuple[tuple[float, str], ...], help: str = "") -> Panel:
    return Panel(title, {"": expr}, "short", "stat", width, help, steps)


def yes_or_no(title: str, expr: str, width: int, steps: tuple[tuple[float, str], ...]) -> Panel:
    return Panel(title, {"": expr}, "bool_yes_no", "stat", width, steps=steps)


def succeed(where: str, width: int) -> Panel:
    help = "Objective: 99.9 %. A refusal for want of room, a deadline or a cancel is no failure."
    kept = _kept("headrace:turns_failed:rate5m", "headrace:turns:rate5m", where)
    return Panel("Turns that did not fail, 1 h", {"": kept}, "percentunit", "stat", width, help, OBJECTIVE)


def in_time(where: str, width: int) -> Panel:
    kept = _kept("headrace:first_tokens_late:rate5m", "headrace:first_tokens:rate5m", where)
    title, help = "First tokens within 5 s, 1 h", "Objective: 99 %."
    return Panel(title, {"": kept}, "percentunit", "stat", width, help, LATE)


def _kept(lost: str, whole: str, where: str) -> str:
    """The share of the last hour that is not lost."""
    return f"1 - sum(sum_over_time({lost}{{{where}}}[1h])) / sum(sum_over_time({whole}{{{where}}}[1h]))"


def linked(where: str, width: int) -> Panel:
    help = "Replicas to which at least one gateway has a link."
    return stat("Replicas linked", f"sum(headrace:links:up{{{where}}})", width, SOME_WANTED, help)


def outcomes(where: str, metric: str = "headrace_turns_total") -> Panel:
    return Panel("Turns by outcome", {"{{outcome}}": rate(metric, where, "outcome")}, "reqps", stacked=True)


def first_token(where: str) -> Panel:
    steps = ((0.0, "transparent"), (5.0, "red"))
    help = "From the call to the first token, as the gateway sends it."
    return Panel(
        "Time to first token", quantiles("headrace_ttft_seconds", where), "s", steps=steps, help=help
    )


def tokens(where: str) -> Panel:
    queries = {
        "sampled": total("headrace_completion_tokens_total", where),
        "of them reasoning": total("headrace_reasoning_tokens_total", where),
        "prompts": total("headrace_prompt_tokens_total", where),
        "of them cached": total("headrace_cached_tokens_total", where),
    }
    return Panel("Tokens a second", queries)


def tenants(where: str) -> Panel:
    expr = f"topk(10, {rate('headrace_tenant_tokens_total', where, 'tenant')})"
    help = "Tokens a second of prompts and answers. Tenants beyond the first 200 of a gateway are `other`."
    return Panel("Ten tenants with the most tokens", {"{{tenant}}": expr}, help=help, stacked=True)
