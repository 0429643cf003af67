"""Switches traces and metrics on, according to the standard `OTEL_*` environment variables.

An endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`) or an exporter (`OTEL_TRACES_EXPORTER=otlp`,
`OTEL_METRICS_EXPORTER=otlp`) switches them on. Without these variables nothing is exported.
"""

import os
from collections.abc import Callable
from threading import Thread
from time import monotonic

from runtime.process.logs.repeated_errors import describe_error
from runtime.process.start_error import InvalidSetting
from runtime.telemetry import tracing

SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a stopping process waits for the collector."""

_shutdowns: list[Callable[[], None]] = []


def configure(service: str) -> None:
    """Set up traces and metrics as far as the environment switches them on.

    Args:
        service: the resource attribute `service.name`, unless OTEL_SERVICE_NAME overrides it.

    Raises:
        InvalidSetting: a variable names an unsupported exporter or protocol, or has an invalid value.
    """
    try:
        _configure(service)
    except InvalidSetting:
        raise
    except Exception as error:  # the SDK reads many variables, and does not name them
        raise InvalidSetting(f"OTEL_*: the export cannot be set up: {describe_error(error)}") from error


def _configure(service: str) -> None:
    export_traces, export_metrics = _is_enabled("TRACES"), _is_enabled("METRICS")
    if export_traces or export_metrics:
        from runtime.telemetry import export  # the import takes a third of a second

        resource = export.create_resource(service)
        if export_traces:
            tracer, ratio, shutdown = export.create_tracer(resource)
            tracing.configure(tracer, ratio)
            _shutdowns.append(shutdown)
        if export_metrics:
            _shutdowns.append(export.start_metrics_export(resource))


def _is_enabled(signal: str) -> bool:
    """Return whether the environment switches the export of a signal (TRACES or METRICS) on."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(os.environ.get(name) for name in endpoints) else "none"
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER") or default
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if exporter not in ("otlp", "none"):
        raise InvalidSetting(f"OTEL_{signal}_EXPORTER={exporter}: only otlp and none are supported")
    if exporter == "otlp" and protocol != "grpc":
        raise InvalidSetting(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only grpc is supported")
    return exporter == "otlp"


def shutdown() -> None:
    """Export all recorded data that is still pending, and stop, within SHUTDOWN_TIMEOUT in all.

    A collector that does not answer holds an export for longer. The process ends in the middle of it.
    """
    threads = [Thread(target=stop, name="telemetry shutdown", daemon=True) for stop in _shutdowns]
    _shutdowns.clear()
    end = monotonic() + SHUTDOWN_TIMEOUT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - monotonic()))
