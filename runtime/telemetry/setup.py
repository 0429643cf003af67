"""Switches telemetry on, according to the standard `OTEL_*` environment variables.

An endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`) or an exporter (for instance `OTEL_TRACES_EXPORTER=otlp`) switches
the export on. Without these variables nothing is exported.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Thread
from time import monotonic

from runtime.grpc.addresses import bind
from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.telemetry import tracing
from runtime.telemetry.instruments import keep_exemplars
from runtime.telemetry.log_export import LogExport
from runtime.telemetry.snapshots import MetricSnapshot, take_snapshots
from runtime.telemetry.telemetry_settings import (
    TelemetrySettings,
    list_unknown_variables,
    read_telemetry_settings,
)

log = logs.get_logger(__name__)

SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a stopping process waits for the collector."""

_shutdowns: list[Callable[[], None]] = []


@dataclass(frozen=True)
class WorkerRole:
    """The role of a process among workers: their parent, one of them, or neither."""

    collect: Callable[[], list[MetricSnapshot]] = take_snapshots
    """Returns the metrics for /metrics, of a parent those of all its workers; callable in any thread."""
    parent: int | None = None
    """Of a worker: the descriptor of the socket of its parent."""


SINGLE = WorkerRole()


def configure(service: str, settings: Settings, role: WorkerRole) -> None:
    """Set up the export as far as the environment switches it on.

    Args:
        service: the resource attribute `service.name`, unless OTEL_SERVICE_NAME overrides it.
        settings: of the process.
        role: of this process among workers.

    Raises:
        InvalidSetting: a variable is malformed or not supported.
        StartError: the address of the metrics cannot be listened at.
    """
    try:
        _configure(service, settings, role)
    except StartError:
        raise
    except Exception as error:  # the SDK's own, for instance of a certificate's content
        raise InvalidSetting(f"OTEL_*: the export cannot be set up: {describe_error(error)}") from error


def _configure(service: str, settings: Settings, role: WorkerRole) -> None:
    telemetry = read_telemetry_settings()
    if telemetry.sdk_log_level:
        logging.getLogger("opentelemetry").setLevel(telemetry.sdk_log_level)
    if any(telemetry.exporters.values()) or settings.metrics_address:
        _start(service, settings, telemetry, role)
    for name in list_unknown_variables():
        log.warning("Variable has no effect", name=name)


def _start(service: str, settings: Settings, telemetry: TelemetrySettings, role: WorkerRole) -> None:
    from runtime.telemetry import export, resource  # the imports take a third of a second
    from runtime.telemetry.worker_metrics import WorkerReporter

    is_worker = role.parent is not None
    created = resource.create_resource(service, settings.environment, is_worker)
    if telemetry.exporters["logs"]:
        _shutdowns.append(LogExport(service, settings.log_format, created.attributes).stop)
    if telemetry.exporters["traces"]:
        tracer, ratio, stop = export.create_tracer(created, telemetry)
        tracing.configure(tracer, ratio)
        _shutdowns.append(stop)
    keep_exemplars(telemetry.exemplars)
    _shutdowns.extend(export.start_metric_exports(created, telemetry))
    if role.parent is not None:
        _shutdowns.append(WorkerReporter(role.parent).stop)
    elif settings.metrics_address:
        _serve_metrics("DIPTYCH_METRICS_ADDRESS", settings.metrics_address, role, created.attributes)
    elif "prometheus" in telemetry.exporters["metrics"]:
        address = telemetry.prometheus_address
        _serve_metrics("OTEL_EXPORTER_PROMETHEUS_HOST", address, role, created.attributes)


def _serve_metrics(setting: str, address: str, role: WorkerRole, resource: Mapping[str, object]) -> None:
    from runtime.telemetry.metrics_endpoint import MetricsEndpoint  # imports prometheus_client

    try:
        listener = bind(address)
        listener.listen()
    except (StartError, OSError) as error:
        raise StartError(f"{setting}: {error}") from error
    host, port = listener.getsockname()[:2]
    log.info("Metrics served", host=host, port=port)
    _shutdowns.append(MetricsEndpoint(listener, role.collect, resource).stop)


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
