"""A collector that is away is logged once for each signal, and so is its return."""

import asyncio
import logging
from collections.abc import Iterator
from logging.handlers import BufferingHandler

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk.resources import Resource

from runtime.telemetry import export, log_exporter, reported_exporter
from runtime.telemetry.telemetry_settings import read_telemetry_settings
from tests.support.harness.collector import Collector
from tests.support.harness.http_collector import HttpCollector
from tests.support.harness.log_lines import own_lines
from tests.support.harness.waiting import until

SIGNALS = ["logs", "metrics", "traces"]
OPTIONS = {
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_BSP_MAX_QUEUE_SIZE": "2",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
}


@pytest.fixture
def library_lines() -> Iterator[BufferingHandler]:
    """The records that reach the root of Python's `logging`."""
    handler = BufferingHandler(10_000)
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_goes_and_returns_costs_two_lines_for_each_signal(
    protocol: str, monkeypatch: pytest.MonkeyPatch, library_lines: BufferingHandler
) -> None:
    collector = Collector() if protocol == "grpc" else HttpCollector()
    await collector.start()
    await collector.stop()
    for name, value in (collector.environment | OPTIONS).items():
        monkeypatch.setenv(name, value)
    settings, resource = read_telemetry_settings(), Resource.create({"service.version": "1"})
    with own_lines() as lines:
        tracer, _, stop_traces = export.create_tracer(resource, settings)
        stop_metrics = export.start_metric_exports(resource, settings)
        provider = log_exporter.create_provider(settings, resource.attributes)

        def emit() -> bool:
            """Emit a span and a record; more than the queue holds, while the collector is away."""
            tracer.start_span("s").end()
            provider.get_logger("l").emit(LogRecord(body="r"))
            return False

        def list_failures() -> list[str]:
            return sorted(line["signal"] for line in lines.of("Telemetry export failed"))

        await until(lambda: emit() or list_failures() == SIGNALS)
        library_lines.flush()  # the queues may have been full before the first export failed
        assert all(f":{collector.port}" in line["endpoint"] and line["error"] for line in lines.all())
        for _ in range(50):
            await asyncio.sleep(0.01)  # some exports of each signal fail meanwhile
            emit()
        await collector.start()
        await until(lambda: emit() or len(lines.of("Recovered")) == 3)
        for stop in (stop_traces, *stop_metrics, provider.shutdown):
            await asyncio.to_thread(stop)
    await collector.stop()
    assert list_failures() == SIGNALS
    assert sorted(line["signal"] for line in lines.of("Recovered")) == SIGNALS
    assert all(line["failures"] > 1 for line in lines.of("Recovered"))
    assert not [each for each in library_lines.buffer if each.name.startswith("opentelemetry")]


def test_other_lines_of_the_sdk_are_written(
    monkeypatch: pytest.MonkeyPatch, library_lines: BufferingHandler
) -> None:
    monkeypatch.setattr(reported_exporter, "_failing", set())
    values = {"name": "opentelemetry.sdk", "levelno": logging.WARNING, "msg": "Queue full, dropping %s."}
    record = logging.makeLogRecord(values | {"args": ("Span",)})
    reported_exporter._SdkHandler().handle(record)
    assert library_lines.buffer == [record]
