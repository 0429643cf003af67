"""Turns traces and metrics on where the environment asks for them.

The standard `OTEL_*` variables decide: an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`) or an exporter
(`OTEL_TRACES_EXPORTER=otlp`, `OTEL_METRICS_EXPORTER=otlp`). Without them nothing is recorded.
"""

import os
from collections.abc import Callable

from runtime.process.start_error import StartError
from runtime.telemetry import metrics, tracing
from runtime.telemetry.instruments import Instruments

_shutdowns: list[Callable[[], None]] = []


def configure(service: str) -> None:
    """Set up what the environment asks for.

    Args:
        service: the resource attribute `service.name`, unless OTEL_SERVICE_NAME says otherwise.

    Raises:
        StartError: a variable asks for an exporter or a protocol that is not here.
    """
    traces_wanted, metrics_wanted = _wanted("TRACES"), _wanted("METRICS")
    if traces_wanted or metrics_wanted:
        from runtime.telemetry import export  # takes a third of a second to import

        resource = export.resource(service)
        if traces_wanted:
            tracer, share, shutdown = export.tracer(resource)
            tracing.use(tracer, share)
            _shutdowns.append(shutdown)
        if metrics_wanted:
            metrics.instruments = Instruments()
            _shutdowns.append(export.export_metrics(resource, metrics.instruments))


def _wanted(signal: str) -> bool:
    """Return whether the environment asks for traces or metrics to be exported."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(os.environ.get(name) for name in endpoints) else "none"
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER") or default
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if exporter not in ("otlp", "none"):
        raise StartError(f"OTEL_{signal}_EXPORTER={exporter}: only otlp and none are supported")
    if exporter == "otlp" and protocol != "grpc":
        raise StartError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only grpc is supported")
    return exporter == "otlp"


def shutdown() -> None:
    """Export what was recorded and is not exported yet, for a few seconds at the most."""
    while _shutdowns:
        _shutdowns.pop()()
