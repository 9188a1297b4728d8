"""Every metric of the gateway, named once. Times are seconds; labels are low in cardinality and never content."""

from importlib import metadata
from math import nan

from prometheus_client import Counter, Gauge, Histogram

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STORE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
INTER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)

REQUESTS = Counter("headrace_requests_total", "Calls ended", ["method", "outcome"])
TURNS = Counter("headrace_turns_total", "Turns ended", ["model", "outcome"])
TTFT = Histogram("headrace_ttft_seconds", "Call to first token", ["model"], buckets=LATENCY)
INTER_TOKEN_LATENCY = Histogram(
    "headrace_inter_token_seconds", "Between two tokens of a turn", ["model"], buckets=INTER_TOKEN
)
END_TO_END = Histogram("headrace_turn_seconds", "Call to terminal event", ["model"], buckets=LATENCY)
QUEUE_TIME = Histogram(
    "headrace_queue_seconds", "In the replica's queue before the first step", ["model"], buckets=LATENCY
)
PROMPT_TOKENS = Counter("headrace_prompt_tokens_total", "Prompt tokens of turns started", ["model"])
CACHED_TOKENS = Counter("headrace_cached_tokens_total", "Prompt tokens found in a prefix cache", ["model"])
COMPLETION_TOKENS = Counter("headrace_completion_tokens_total", "Tokens sampled", ["model"])
REASONING_TOKENS = Counter("headrace_reasoning_tokens_total", "Of the tokens sampled, reasoning", ["model"])
MALFORMED = Counter(
    "headrace_malformed_total",
    "Answers that broke their model's format, by rule and what was done: mended, retried, ended",
    ["model", "flaw", "action"],
)
MESSAGES = Counter("headrace_stream_messages_total", "Stream messages written, after coalescing")
IN_FLIGHT = Gauge("headrace_turns_in_flight", "Turns running", multiprocess_mode="livesum")
CAPACITY = Gauge("headrace_turns_capacity", "Turns in flight at most", multiprocess_mode="livesum")
HELD = Gauge("headrace_turns_held", "Turns that wait for a replica", ["model"], multiprocess_mode="livesum")
TENANT_TURNS = Counter(
    "headrace_tenant_turns_total", "Turns ended, by tenant", ["tenant", "model", "outcome"]
)
TENANT_TOKENS = Counter(
    "headrace_tenant_tokens_total",
    "Tokens of turns ended, by tenant and kind: prompt, completion, and of the prompt cached",
    ["tenant", "model", "kind"],
)
TENANT_IN_FLIGHT = Gauge(
    "headrace_tenant_turns_in_flight", "Turns running, by tenant", ["tenant"], multiprocess_mode="livesum"
)
REROUTES = Counter("headrace_reroutes_total", "Orders moved before their first token", ["model", "cause"])
MIGRATIONS = Counter("headrace_migrations_total", "Answers that went on elsewhere", ["model", "cause"])
UNKEPT = Counter("headrace_turns_unkept_total", "Turns begun while the store was away, and not resumable")
TAKEOVERS = Counter("headrace_takeovers_total", "Turns taken over from a gateway that was lost")
FENCED = Counter("headrace_turns_fenced_total", "Turns lost to another gateway")
RESUMES = Counter("headrace_resumes_total", "Streams read on from a position")
REWINDS = Counter("headrace_rewinds_total", "Readers that were ahead of what survived a gateway")
REPEATS = Counter("headrace_repeats_total", "Calls that followed the turn that had their idempotency key")
JOURNAL_LAG = Gauge(
    "headrace_journal_lag_events", "Events that the store does not have yet", multiprocess_mode="livesum"
)
ROUTES = Counter(
    "headrace_routes_total",
    "Orders sent to a replica, by why it was chosen: session, prefix, spill, least_wait, last_resort",
    ["model", "reason"],
)
EJECTIONS = Counter(
    "headrace_ejections_total", "Replicas that got no new turns for a while: failing, slow", ["model", "why"]
)
LINK_UP = Gauge(
    "headrace_link_up",
    "1 while the link to a replica is up",
    ["model", "replica"],
    multiprocess_mode="livemin",
)
LINK_RECONNECTS = Counter(
    "headrace_link_reconnects_total", "Links made again after they were up", ["model", "replica"]
)
LINK_ROUND_TRIP = Gauge(
    "headrace_link_round_trip_seconds",
    "From the last ping of a link to its answer",
    ["model", "replica"],
    multiprocess_mode="livemax",
)
ENGINE_RUNNING = Gauge(
    "headrace_engine_running",
    "Turns in the engine's batch",
    ["model", "replica"],
    multiprocess_mode="livemax",
)
ENGINE_WAITING = Gauge(
    "headrace_engine_waiting",
    "Turns in the engine's queue",
    ["model", "replica"],
    multiprocess_mode="livemax",
)
ENGINE_KV_USE = Gauge(
    "headrace_engine_kv_use", "Share of KV blocks in use", ["model", "replica"], multiprocess_mode="livemax"
)
SESSION_WRITES = Counter(
    "headrace_session_writes_total", "Sessions created, appended to, forked or deleted", ["outcome"]
)
SESSION_BUSY = Counter("headrace_session_busy_total", "Turns refused: another one writes to their session")
STORE_SECONDS = Histogram(
    "headrace_store_seconds", "Calls to the store, by command", ["operation"], buckets=STORE
)
STORE_UP = Gauge("headrace_store_up", "1 while Redis answers", multiprocess_mode="livemin")
STORE_BREAKER = Gauge(
    "headrace_store_breaker_open",
    "1 while calls to this server of the store end at once, because it does not answer",
    ["server"],
    multiprocess_mode="livemax",
)
LOOP_LAG = Gauge(
    "headrace_loop_lag_seconds", "Worst delay of the event loop lately", multiprocess_mode="livemax"
)

TLS_EXPIRY = Gauge(
    "headrace_tls_expiry_seconds",
    "Seconds since the epoch when the certificate that is served ends",
    multiprocess_mode="livemin",
)
BUILD_INFO = Gauge("headrace_build_info", "1, by version", ["version"], multiprocess_mode="livemax")

TENANTS = 200  # that have labels of their own
OTHER = "other"
OF_LINK = (LINK_UP, LINK_ROUND_TRIP, ENGINE_RUNNING, ENGINE_WAITING, ENGINE_KV_USE)


class TurnMeter:
    """The metrics of one model with their labels resolved once: what the token path may touch."""

    __slots__ = ("cached", "completion", "end_to_end", "inter_token", "prompt", "queue", "reasoning", "ttft")

    def __init__(self, model: str) -> None:
        self.ttft = TTFT.labels(model)
        self.inter_token = INTER_TOKEN_LATENCY.labels(model)
        self.end_to_end = END_TO_END.labels(model)
        self.queue = QUEUE_TIME.labels(model)
        self.prompt = PROMPT_TOKENS.labels(model)
        self.cached = CACHED_TOKENS.labels(model)
        self.completion = COMPLETION_TOKENS.labels(model)
        self.reasoning = REASONING_TOKENS.labels(model)


class TenantLabels:
    """The first TENANTS tenants that a worker sees by their ids, all later ones as OTHER: a label is for good."""

    def __init__(self, most: int = TENANTS) -> None:
        self._most = most
        self._seen: set[str] = set()

    def of(self, tenant: str) -> str:
        if tenant not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(tenant)
        return tenant


class LinkMeter:
    """The metrics of the links, which come and go with the replicas."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def connected(self, model: str, replica: str) -> None:
        LINK_UP.labels(model, replica).set(1)
        if (model, replica) in self._known:
            LINK_RECONNECTS.labels(model, replica).inc()
        self._known.add((model, replica))

    def down(self, model: str, replica: str) -> None:
        """It has no load; its last values would stand until it is forgotten."""
        for gauge in OF_LINK:
            gauge.labels(model, replica).set(0)

    def forget(self, model: str, replica: str) -> None:
        """The replica is no more: its values would stand for ever, and a link that is down would alarm."""
        for gauge in OF_LINK:
            gauge.labels(model, replica).set(nan)
        self._known.discard((model, replica))


def describe_build() -> None:
    BUILD_INFO.labels(version()).set(1)


def version() -> str:
    """Of the package; "unknown" where it runs from a folder that was never installed."""
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "unknown"
