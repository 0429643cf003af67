"""The W3C trace context of the current span, if the caller uses OpenTelemetry."""

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # the caller does not trace
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()


def read() -> tuple[tuple[str, str], ...]:
    """Return `traceparent` and `tracestate` as metadata; nothing without OpenTelemetry or a current span."""
    if _propagator is None:
        return ()
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return tuple(carrier.items())
