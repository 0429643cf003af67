"""The OpenTelemetry SDK, set up to export over OTLP/gRPC; imported only where the environment asks for it."""

import os
from collections.abc import Callable
from threading import Timer

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

_PATIENCE = 2.0
"""Seconds that the end of the process waits for a collector that may be away, for traces and for metrics."""


def resource(service: str) -> Resource:
    """Return what is said of this process: OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME or its name."""
    return Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service})


def tracer(resource: Resource) -> tuple[Tracer, Callable[[], None]]:
    """Return a tracer, and a function that exports what is left and ends."""
    exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("diptych"), _patient(provider.shutdown, exporter.shutdown)


def meter(resource: Resource) -> tuple[Meter, Callable[[], None]]:
    """Return a meter, and a function that exports what is left and ends."""
    exporter = OTLPMetricExporter()
    reader = PeriodicExportingMetricReader(exporter)
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    return provider.get_meter("diptych"), _patient(provider.shutdown, exporter.shutdown)


def _patient(end: Callable[[], None], give_up: Callable[[], None]) -> Callable[[], None]:
    """Return `end`, cut short by `give_up`: the SDK's own time-outs do not bound its retries."""

    def bounded() -> None:
        timer = Timer(_PATIENCE, give_up)
        timer.start()
        end()
        timer.cancel()

    return bounded
