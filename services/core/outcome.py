"""How a turn or a call can end: one closed set, used as the metric label everywhere."""

from enum import StrEnum


class Outcome(StrEnum):
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    PRECONDITION = "precondition"
    OUT_OF_RANGE = "out_of_range"
    FORBIDDEN = "forbidden"
    UNSAFE_INPUT = "unsafe_input"
    REFUSED_FULL = "refused_full"
    NO_REPLICA = "no_replica"
    ENGINE_LOST = "engine_lost"
    STORE_AWAY = "store_away"
    DRAINING = "draining"
    INTERNAL = "internal"
