"""Spans on their way to a collector, the gateway's and the engine's: OTLP over gRPC, in batches, by a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

QUEUE, BATCH = 4096, 512  # spans that wait for the collector, beyond which they are dropped; sent at once
PERIOD_MS = 1000.0  # between two batches
EXPORT_S = 3.0  # that one export may take


def exported(
    service: str, endpoint: str, exporter: Callable[[], SpanExporter] | None = None, **options: Any
) -> TracerProvider:
    """A provider whose spans go to `endpoint`, as http://host:4317, or https with TLS, or to `exporter` in its place.
    While the collector is away they are dropped. `options` are the provider's own."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, **options)
    sink = _otlp(endpoint) if exporter is None else exporter()
    provider.add_span_processor(
        BatchSpanProcessor(sink, QUEUE, PERIOD_MS, BATCH, export_timeout_millis=EXPORT_S * 1000)
    )
    return provider


def _otlp(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint, insecure=not endpoint.startswith("https"), timeout=EXPORT_S)
