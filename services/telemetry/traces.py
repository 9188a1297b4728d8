"""Traces of turns, by OpenTelemetry. Without a collector everything here is a call of an empty method, and
OpenTelemetry is not even imported. Spans hold ids, names and figures, never content; an error is told by its type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from cluster.telemetry.otlp import exported
from services.core.errors import HeadraceError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import SpanContext, Tracer

Value = str | int | float | bool

# https://www.w3.org/TR/trace-context/#traceparent-header-field-values
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
MAX_VALUE = 200  # characters of an attribute
MAX_EVENTS = 32  # of a span


class Trace:
    """A span that is not recorded; what records is made by Tracing. `header` is a W3C traceparent, "" if none."""

    header = ""
    ids: Mapping[str, str] = {}

    def child(self, name: str, **attributes: Value) -> Trace:
        """To be entered; it ends with the block."""
        return self

    def event(self, name: str, **attributes: Value) -> None: ...

    def put(self, **attributes: Value) -> None: ...

    def end(self, failure: str = "") -> None:
        """`failure`: what kind of error it ended with, if any. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None: ...


UNTRACED = Trace()


class Recorded(Trace):
    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        self._tracer, self._span = tracer, span
        context = span.get_span_context()
        self.header = _header(context)
        self.ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def child(self, name: str, **attributes: Value) -> Trace:
        from opentelemetry.trace import set_span_in_context

        within = set_span_in_context(self._span)
        return Recorded(self._tracer, self._tracer.start_span(name, within, attributes=_named(attributes)))

    def event(self, name: str, **attributes: Value) -> None:
        self._span.add_event(name, _named(attributes))

    def put(self, **attributes: Value) -> None:
        self._span.set_attributes(_named(attributes))

    def end(self, failure: str = "") -> None:
        from opentelemetry.trace import Status, StatusCode

        if not self._span.is_recording():
            return
        if failure:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.end("" if error is None else _failure(error))


class Tracing:
    """Begins traces. `provider` None: there are none."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("headrace.gateway")

    @property
    def on(self) -> bool:
        return self._tracer is not None

    def begin(self, name: str, parent: str = "", link: str = "", **attributes: Value) -> Trace:
        """A span under the caller's, or a trace of its own. `parent` and `link` are W3C traceparents; what is none
        is ignored."""
        if self._tracer is None:
            return UNTRACED
        from opentelemetry import trace

        above, linked = _context(parent), _context(link)
        context = trace.set_span_in_context(trace.NonRecordingSpan(above)) if above else None
        span = self._tracer.start_span(
            name,
            context,
            trace.SpanKind.SERVER,
            _named(attributes),
            [trace.Link(linked)] if linked else [],
        )
        # What is not sampled costs no more than what is not traced.
        return Recorded(self._tracer, span) if span.is_recording() else UNTRACED

    def close(self) -> None:
        """Sends what is left, for a moment; blocks."""
        if self._provider is not None:
            self._provider.shutdown()


def tracing(endpoint: str, ratio: float, exporter: Callable[[], SpanExporter] | None = None) -> Tracing:
    """`endpoint`: a collector's OTLP over gRPC, as http://host:4317, or https with TLS; "": no traces. `ratio`: of
    turns whose caller has not decided, 0..1. Spans are sent in batches by a thread, and dropped while the collector
    is away."""
    if not endpoint and exporter is None:
        return Tracing()
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    limits = SpanLimits(max_span_attributes=32, max_span_attribute_length=MAX_VALUE, max_events=MAX_EVENTS)
    sampler = ParentBased(TraceIdRatioBased(ratio))
    return Tracing(exported("headrace-gateway", endpoint, exporter, sampler=sampler, span_limits=limits))


def _failure(error: BaseException) -> str:
    """What kind of failure it is: the outcome that callers are told, else the name of the error's type."""
    return error.outcome if isinstance(error, HeadraceError) else type(error).__name__


def _named(attributes: Mapping[str, Value]) -> dict[str, Any]:
    """Python's names have no dots: `gen_ai__request__model` is gen_ai.request.model; the rest is ours."""
    return {
        name.replace("__", ".") if "__" in name else f"headrace.{name}": value
        for name, value in attributes.items()
    }


def _context(header: str) -> SpanContext | None:
    from opentelemetry.trace import SpanContext, TraceFlags

    if (found := TRACEPARENT.fullmatch(header)) is None:
        return None
    trace, span, flags = (int(group, 16) for group in found.groups())
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))


def _header(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
