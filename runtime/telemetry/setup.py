"""Switches telemetry on, according to the standard `OTEL_*` environment variables.

An endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`) or an exporter (for instance `OTEL_TRACES_EXPORTER=otlp`) switches
the export on. Without these variables nothing is exported.
"""

import logging
from collections.abc import Callable
from threading import Thread
from time import monotonic

from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.telemetry import tracing
from runtime.telemetry.telemetry_settings import list_unknown_variables, read_telemetry_settings

log = logs.get_logger(__name__)

SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a stopping process waits for the collector."""

_shutdowns: list[Callable[[], None]] = []


def configure(service: str, settings: Settings, worker: bool = False) -> None:
    """Set up the export as far as the environment switches it on.

    Args:
        service: the resource attribute `service.name`, unless OTEL_SERVICE_NAME overrides it.
        settings: of the process.
        worker: whether this process is one of several that share address and variables.

    Raises:
        InvalidSetting: a variable is malformed or not supported.
    """
    try:
        _configure(service, settings, worker)
    except StartError:
        raise
    except Exception as error:  # the SDK's own, for instance of a certificate's content
        raise InvalidSetting(f"OTEL_*: the export cannot be set up: {describe_error(error)}") from error


def _configure(service: str, settings: Settings, worker: bool) -> None:
    telemetry = read_telemetry_settings()
    if telemetry.sdk_log_level:
        logging.getLogger("opentelemetry").setLevel(telemetry.sdk_log_level)
    for name in list_unknown_variables():
        log.warning("Variable has no effect", name=name)
    if not any(telemetry.exporters.values()):
        return
    from runtime.telemetry import export, resource  # the imports take a third of a second

    attributes = resource.create_resource(service, settings.environment, worker)
    if telemetry.exporters["traces"]:
        tracer, ratio, stop = export.create_tracer(attributes, telemetry)
        tracing.configure(tracer, ratio)
        _shutdowns.append(stop)
    _shutdowns.extend(export.start_metric_exports(attributes, telemetry))


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
