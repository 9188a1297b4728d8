"""The caller's trace on its way to the endpoint: W3C trace context, if the process has set OpenTelemetry up."""

import sys


def traced(metadata: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The metadata with the current span's `traceparent`. OpenTelemetry is not imported here: where nobody else
    has imported it, there is no span."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return metadata
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return metadata
    header = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return (*metadata, ("traceparent", header))
