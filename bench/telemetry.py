"""Telemetry as in production: 10 % of traces, all metrics and logs, and a collector that takes them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bench.echo_process import run_echo

COLLECTOR_METHODS = (
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
)


@asynccontextmanager
async def run_collector(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """Run a collector that drops everything; yield the variables with which processes export to it."""
    async with run_echo(folder, dict.fromkeys(COLLECTOR_METHODS, b"")) as (collector, _):
        yield {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
        }
