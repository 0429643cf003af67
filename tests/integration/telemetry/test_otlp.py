"""The export over OTLP, by gRPC and by HTTP, to collectors that work, hang, refuse and fail."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest

from runtime.process.version import VERSION
from runtime.telemetry.setup import SHUTDOWN_TIMEOUT
from tests.support.harness.certificates import write_certificate
from tests.support.harness.collector import Collector
from tests.support.harness.http_collector import HttpCollector
from tests.support.harness.toy_process import toy_process

METHOD = "acme.ledger.v1.QueryService/GetCheque"
SAMPLED = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
CUMULATIVE, DELTA = 2, 1


@pytest.fixture
async def http_collector() -> AsyncIterator[HttpCollector]:
    async with HttpCollector() as collector:
        yield collector


@pytest.fixture
async def grpc_collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


async def test_traces_and_metrics_go_to_a_collector_over_http(
    tmp_path: Path, http_collector: HttpCollector
) -> None:
    options = {
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    }
    async with toy_process(tmp_path, environment=http_collector.environment | options) as toy:
        await toy.wait_serving()
        await toy.get("c-1", SAMPLED)
        await http_collector.span(lambda span: span.name == METHOD)
        await toy.get("c-1", SAMPLED)
        await toy.get("c-1", SAMPLED)
        toy.process.terminate()
        assert await toy.wait_ended() == 0
    calls = [point for point in http_collector.points if point.name == "rpc.server.call.duration"]
    assert sum(point.count for point in calls) == 3
    assert http_collector.temporalities["rpc.server.call.duration"] == DELTA
    assert set(http_collector.paths) == {"/v1/traces", "/v1/metrics"}
    assert {(h["api-key"], h["content-encoding"]) for h in http_collector.headers} == {("a b", "gzip")}


@pytest.mark.long
async def test_signals_may_go_to_different_collectors(
    tmp_path: Path, http_collector: HttpCollector, grpc_collector: Collector
) -> None:
    options = {
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{http_collector.port}/v1/metrics",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=traces",
    }
    async with toy_process(tmp_path, environment=grpc_collector.environment | options) as toy:
        await toy.wait_serving()
        await toy.get("c-1", SAMPLED)
        await grpc_collector.span(lambda span: span.name == METHOD)
        await http_collector.point(lambda point: point.name == "rpc.server.call.duration")
    assert grpc_collector.points == [] == http_collector.spans
    assert http_collector.temporalities["rpc.server.call.duration"] == CUMULATIVE
    assert grpc_collector.headers[0]["api-key"] == "traces"


@pytest.mark.long
async def test_the_resource_tells_processes_and_workers_apart(
    tmp_path: Path, grpc_collector: Collector
) -> None:
    options = {
        "DIPTYCH_ENVIRONMENT": "staging",
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=toy-1,team=a%20b",
        "OTEL_SERVICE_NAME": "toy",
    }
    async with toy_process(
        tmp_path, "--workers", "2", environment=grpc_collector.environment | options
    ) as toy:
        await toy.wait_serving()
        async with asyncio.timeout(15):
            while len({r["service.instance.id"] for r in grpc_collector.resources}) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        resources = {r["service.instance.id"]: r for r in grpc_collector.resources}
        pids = {resource["process.pid"] for resource in resources.values()}
    assert resources.keys() == {"toy-1"} | {
        f"toy-1-{pid}" for pid in pids if pid != resources["toy-1"]["process.pid"]
    }
    for resource in resources.values():
        expected = {
            "service.name": "toy",
            "service.namespace": "diptych",
            "service.version": VERSION,
            "deployment.environment.name": "staging",
            "team": "a b",
            "host.name": os.uname().nodename,
            "os.type": "linux",
            "process.runtime.name": "cpython",
            "telemetry.sdk.language": "python",
        }
        assert expected.items() <= resource.items()


@pytest.mark.long
@pytest.mark.parametrize("fault", ["refuses", "hangs", "fails", "is slow"])
async def test_a_collector_with_a_fault_delays_neither_calls_nor_the_end(tmp_path: Path, fault: str) -> None:
    collector = HttpCollector()
    await collector.start()
    collector.hangs = fault in ("hangs", "is slow")
    collector.status = 503 if fault == "fails" else 200
    if fault == "refuses":
        await collector.stop()
    options = {"OTEL_BSP_MAX_QUEUE_SIZE": "50", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    try:
        async with toy_process(tmp_path, environment=collector.environment | options) as toy:
            await toy.wait_serving()
            for _ in range(4):
                await asyncio.gather(*[toy.get("traced", SAMPLED) for _ in range(50)])
            if fault == "is slow":
                collector.released.set()
                await collector.span(lambda span: span.name == METHOD)
            start = monotonic()
            toy.process.terminate()
            assert await toy.wait_ended() == 0
            assert monotonic() - start < SHUTDOWN_TIMEOUT + 4
            assert toy.stderr() == ""
    finally:
        if fault != "refuses":
            await collector.stop()


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_with_tls_wants_a_certificate(tmp_path: Path, protocol: str) -> None:
    collector = Collector() if protocol == "grpc" else HttpCollector()
    certificate = write_certificate(tmp_path / "certificate.pem")
    await collector.start(certificate.read_bytes())
    options = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{collector.port}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificate),
        "OTEL_LOGS_EXPORTER": "otlp",
    }
    async with toy_process(tmp_path, environment=collector.environment | options) as toy:
        await toy.wait_serving()
        await toy.get("traced", SAMPLED)
        await collector.span(lambda span: span.name == METHOD)
        await collector.point(lambda point: point.name == "rpc.server.call.duration")
        await collector.record(lambda record: record.body == "Traced")
    await collector.stop()


@pytest.mark.long
async def test_an_export_ends_after_the_milliseconds_of_its_timeout(
    tmp_path: Path, grpc_collector: Collector
) -> None:
    """OpenTelemetry specifies milliseconds, and the SDK takes the number for seconds."""
    grpc_collector.hangs = True
    options = {"OTEL_EXPORTER_OTLP_TIMEOUT": "300", "OTEL_TRACES_EXPORTER": "none"}
    async with toy_process(tmp_path, environment=grpc_collector.environment | options) as toy:
        await toy.wait_serving()
        async with asyncio.timeout(15):
            while grpc_collector.calls < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        line = next(line for line in toy.lines() if line["message"] == "Telemetry export failed")
        assert line["level"] == "warning"


@pytest.mark.long
async def test_the_console_gets_lines_of_json(tmp_path: Path) -> None:
    console = {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    async with toy_process(tmp_path, environment=console) as toy:
        await toy.wait_serving()
        await toy.get("c-1", SAMPLED)
        toy.process.terminate()
        assert await toy.wait_ended() == 0
        lines = toy.lines()  # each is JSON
    (span,) = [line for line in lines if line.get("name") == METHOD]
    assert span["attributes"]["rpc.response.status_code"] == "OK"
    assert any("resource_metrics" in line for line in lines)


@pytest.mark.long
async def test_a_variable_that_is_not_supported_ends_the_start(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"OTEL_TRACES_EXPORTER": "zipkin"}) as toy:
        assert await toy.wait_ended() == 2
        assert toy.stderr() == (
            "tests.support.harness.toy_server: OTEL_TRACES_EXPORTER=zipkin: not supported; "
            "choose otlp, console or none\n"
        )


@pytest.mark.long
async def test_a_variable_without_an_effect_is_logged(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"OTEL_TRACE_EXPORTER": "otlp"}) as toy:
        line = await toy.line("Variable has no effect")
        assert line["name"] == "OTEL_TRACE_EXPORTER"
