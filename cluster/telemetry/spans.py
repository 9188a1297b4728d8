"""The engine's part of a turn's trace: one span with queue, prefill and decode below it. No token touches it: a turn's
tokens are counted where a frame is made, and its spans are made when it has ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.engine.port import Cause, Finished, First
from cluster.telemetry.otlp import exported

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

# https://www.w3.org/TR/trace-context/#traceparent-header-field-values, of a turn that is traced.
SAMPLED = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f][13579bdf]")
GOOD = (Cause.STOP, Cause.LENGTH, Cause.CANCELLED)


@dataclass(slots=True)
class Course:
    """Times are nanoseconds since the epoch, 0 while unknown."""

    trace: int
    parent: int
    turn: str
    prompt: int
    begun: int
    queued: int = 0
    first: int = 0
    ended: int = 0
    cached: int = 0
    tokens: int = 0
    cause: Cause | None = None


class Spans:
    """Of the turns on one connection. This one keeps none."""

    def __len__(self) -> int:
        """Turns that are traced and have not been told to their end."""
        return 0

    def begin(self, id: int, traceparent: str, turn: str, prompt: int) -> None: ...

    def first(self, id: int, first: First) -> None: ...

    def finish(self, id: int, end: Finished) -> None: ...

    def told(self, tokens: Mapping[int, Sized]) -> None:
        """What a frame brings; turns that have finished end with it."""

    def close(self) -> None: ...


UNTRACED = Spans()


class Kept(Spans):
    def __init__(self, tell: Callable[[Course], None], now: Callable[[], int]) -> None:
        self._tell = tell
        self._now = now
        self._open: dict[int, Course] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, id: int, traceparent: str, turn: str, prompt: int) -> None:
        if (found := SAMPLED.fullmatch(traceparent)) is not None:
            trace, parent = (int(group, 16) for group in found.groups())
            self._open[id] = Course(trace, parent, turn, prompt, self._now())

    def first(self, id: int, first: First) -> None:
        if (course := self._open.get(id)) is not None:
            course.queued, course.cached = course.begun + first.queued_us * 1000, first.cached_tokens
            course.first = max(self._now(), course.queued)

    def finish(self, id: int, end: Finished) -> None:
        if (course := self._open.get(id)) is not None:
            course.ended, course.cause = self._now(), end.cause

    def told(self, tokens: Mapping[int, Sized]) -> None:
        for id, course in list(self._open.items()):
            course.tokens += len(tokens.get(id, ()))
            if course.ended:
                self._tell(self._open.pop(id))

    def close(self) -> None:
        for course in self._open.values():
            course.ended = course.ended or self._now()
            self._tell(course)
        self._open.clear()


class Tracing:
    """`provider` None: nothing is traced."""

    def __init__(
        self,
        provider: TracerProvider | None = None,
        attributes: Mapping[str, str] | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("headrace.engine")
        self._attributes = dict(attributes or {})
        self._now = now

    def spans(self) -> Spans:
        """For a new connection."""
        return UNTRACED if self._tracer is None else Kept(self._tell, self._now)

    def close(self) -> None:
        """Sends what is left, for a moment; blocks."""
        if self._provider is not None:
            self._provider.shutdown()

    def _tell(self, course: Course) -> None:
        from opentelemetry import trace

        assert self._tracer is not None
        failed = course.cause not in GOOD
        span = self._tracer.start_span(
            "engine", _under(course.trace, course.parent), trace.SpanKind.SERVER, start_time=course.begun
        )
        span.set_attributes(self._attributes)
        span.set_attributes(
            {
                "headrace.turn": course.turn[:64],
                "headrace.cause": "lost" if course.cause is None else course.cause.name.lower(),
                "gen_ai.usage.input_tokens": course.prompt,
                "gen_ai.usage.output_tokens": course.tokens,
                "headrace.cached_tokens": course.cached,
            }
        )
        below = trace.set_span_in_context(span)
        for name, start, end, attributes in _stages(course):
            self._tracer.start_span(name, below, attributes=attributes, start_time=start).end(end)
        if failed:
            span.set_status(trace.Status(trace.StatusCode.ERROR))
        span.end(course.ended)


def _stages(course: Course) -> Sequence[tuple[str, int, int, dict[str, int]]]:
    """One that never got a token was queued all its time, as far as is known."""
    if not course.first:
        return [("queue", course.begun, course.ended, {})]
    return [
        ("queue", course.begun, course.queued, {}),
        ("prefill", course.queued, course.first, {"headrace.tokens": course.prompt - course.cached}),
        ("decode", course.first, max(course.first, course.ended), {"headrace.tokens": course.tokens}),
    ]


def _under(trace_id: int, span_id: int) -> Context:
    from opentelemetry import trace

    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    parent = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


NO_TRACING = Tracing()


def tracing(
    endpoint: str, attributes: Mapping[str, str], exporter: Callable[[], SpanExporter] | None = None
) -> Tracing:
    """`endpoint`: a collector's OTLP over gRPC, as http://host:4317, or https with TLS; "": nothing is traced. What
    gateways trace is traced here. Spans are sent in batches by a thread, and dropped while the collector is away."""
    if not endpoint and exporter is None:
        return NO_TRACING
    return Tracing(exported("headrace-engine", endpoint, exporter), attributes)
