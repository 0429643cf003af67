"""The export of a serving process over OTLP, and the absence of export where it is off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import grpc
import pytest

from runtime.telemetry import trace_context
from runtime.telemetry.setup import SHUTDOWN_TIMEOUT
from tests.support.harness.collector import Collector
from tests.support.harness.toy_process import toy_process

METHOD = "acme.ledger.v1.QueryService/GetCheque"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


async def test_a_trace_continues_from_the_caller_through_the_call(
    tmp_path: Path, collector: Collector
) -> None:
    async with toy_process(tmp_path, environment=collector.environment) as toy:
        await toy.wait_serving()
        await toy.get("traced", SAMPLED)
        inner = await collector.span(lambda span: span.name == "inner")
        call = await collector.span(lambda span: span.name == METHOD)
        assert (call.service, call.kind, call.trace, call.parent) == (
            "tests.support.harness.toy_server",
            "SERVER",
            TRACE,
            PARENT,
        )
        assert call.attributes == {
            "rpc.system.name": "grpc",
            "rpc.method": METHOD,
            "rpc.response.status_code": "OK",
        }
        assert (inner.trace, inner.parent) == (TRACE, call.id)
        assert call.start_ns <= inner.start_ns <= inner.end_ns <= call.end_ns
        line = await toy.line("Traced")
        assert (line["trace_id"], line["traceparent"]) == (TRACE, f"00-{TRACE}-{inner.id}-01")
        assert (line["span_id"], line["service"]) == (inner.id, call.service)


async def test_a_failed_call_is_an_error_span_only_for_server_faults(
    tmp_path: Path, collector: Collector
) -> None:
    async with toy_process(tmp_path, environment=collector.environment) as toy:
        await toy.wait_serving()
        for cheque_id in ("rule-1", "bug"):
            with pytest.raises(grpc.aio.AioRpcError):
                await toy.get(cheque_id, SAMPLED)
        missing = await collector.span(lambda span: span.attributes.get("error.type") == "CHEQUE_NOT_FOUND")
        assert (missing.attributes["rpc.response.status_code"], missing.status) == ("NOT_FOUND", "UNSET")
        bug = await collector.span(lambda span: span.attributes.get("error.type") == "INTERNAL")
        assert (bug.attributes["rpc.response.status_code"], bug.status) == ("INTERNAL", "ERROR")
        line = await toy.line("Call failed")
        assert line["trace_id"] == TRACE
        assert "a secret of ours" in line["exception"]


async def test_a_call_that_the_caller_does_not_sample_is_not_sampled(
    tmp_path: Path, collector: Collector
) -> None:
    async with toy_process(tmp_path, environment=collector.environment) as toy:
        await toy.wait_serving()
        await toy.get("traced", UNSAMPLED)
        await toy.get("c-1", SAMPLED)
        await collector.span(lambda span: span.name == METHOD)
        line = await toy.line("Traced")
        assert (line["trace_id"], line.get("span_id")) == (TRACE, None)
        assert line["traceparent"] == UNSAMPLED[0][1]
        assert [span.name for span in collector.spans] == [METHOD]


async def test_the_standard_variables_determine_the_sampler(tmp_path: Path, collector: Collector) -> None:
    never = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    async with toy_process(tmp_path, environment=collector.environment | never) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        await toy.get("c-1", SAMPLED)
        await collector.span(lambda span: span.name == METHOD)
        assert [span.parent for span in collector.spans] == [PARENT]


async def test_calls_and_events_are_measured(tmp_path: Path, collector: Collector) -> None:
    async with toy_process(tmp_path, environment=collector.environment) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        await toy.get("slow-20")
        with pytest.raises(grpc.aio.AioRpcError):
            await toy.get("rule-1")
        calls = await collector.point(
            lambda p: p.attributes.get("rpc.response.status_code") == "OK" and p.count == 2
        )
        assert (calls.name, calls.unit, calls.attributes["rpc.method"]) == (
            "rpc.server.call.duration",
            "s",
            METHOD,
        )
        assert 0.02 <= calls.sum < 5
        failures = await collector.point(lambda p: p.attributes.get("error.type") == "NOT_FOUND")
        assert failures.count == 1
        events = await collector.point(lambda point: point.name == "events.processed")
        assert (events.attributes, events.count) == ({"event_type": "toy", "success": True}, 1)


async def test_pending_telemetry_is_exported_before_the_process_ends(
    tmp_path: Path, collector: Collector
) -> None:
    slow = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_METRIC_EXPORT_INTERVAL": "60000"}
    async with toy_process(tmp_path, environment=collector.environment | slow) as toy:
        await toy.wait_serving()
        await toy.get("c-1")
        assert collector.spans == []
        toy.process.terminate()
        assert await toy.wait_ended() == 0
    assert [span.name for span in collector.spans] == [METHOD]
    assert "rpc.server.call.duration" in {point.name for point in collector.points}


async def test_an_unreachable_collector_delays_neither_calls_nor_the_end(tmp_path: Path) -> None:
    unreachable = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    async with toy_process(tmp_path, environment=unreachable) as toy:
        await toy.wait_serving()
        await asyncio.gather(*[toy.get("c-1", SAMPLED) for _ in range(50)])
        start = monotonic()
        toy.process.terminate()
        assert await toy.wait_ended() == 0
        assert monotonic() - start < 10


async def test_a_collector_that_never_answers_delays_neither_calls_nor_the_end(tmp_path: Path) -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        writer.close()

    silent = await asyncio.start_server(ignore, "127.0.0.1", 0)
    async with silent:
        await _serve_with_collector(tmp_path, silent.sockets[0].getsockname()[1])


@pytest.mark.long
async def test_a_collector_that_hangs_delays_neither_calls_nor_the_end(tmp_path: Path) -> None:
    hanging = Collector()
    hanging.hangs = True
    await hanging.start()
    await _serve_with_collector(tmp_path, hanging.port)
    assert hanging.calls >= 1
    await hanging.stop()


async def _serve_with_collector(folder: Path, port: int) -> None:
    """Make more spans than the exporter keeps; the calls and the stop take their usual time."""
    endpoint = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    small_queue = {"OTEL_BSP_MAX_QUEUE_SIZE": "50", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    async with toy_process(folder, environment=endpoint | small_queue) as toy:
        await toy.wait_serving()
        for _ in range(4):
            await asyncio.gather(*[toy.get("traced", SAMPLED) for _ in range(50)])
        start = monotonic()
        toy.process.terminate()
        assert await toy.wait_ended() == 0
        assert monotonic() - start < SHUTDOWN_TIMEOUT + 4
        assert toy.stderr() == ""


async def test_a_trace_that_is_not_sampled_has_ids(tmp_path: Path, collector: Collector) -> None:
    never = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    async with toy_process(tmp_path, environment=collector.environment | never) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        line = await toy.line("Traced")
        assert trace_context.parse(line["traceparent"]) == line["traceparent"]
        assert (line["traceparent"][3:35], line["traceparent"][-2:]) == (line["trace_id"], "00")


@pytest.mark.parametrize("flags", ["00", "01", "03"])
async def test_without_traces_the_callers_trace_is_carried(tmp_path: Path, flags: str) -> None:
    traceparent = f"00-{TRACE}-{PARENT}-{flags}"
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        await toy.get("traced", (("traceparent", traceparent),))
        line = await toy.line("Traced")
        assert (line["trace_id"], line["traceparent"]) == (TRACE, traceparent)


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
async def test_traces_can_be_switched_off(tmp_path: Path, collector: Collector, off: dict[str, str]) -> None:
    async with toy_process(tmp_path, environment=collector.environment | off) as toy:
        await toy.wait_serving()
        await toy.get("traced", SAMPLED)
        toy.process.terminate()
        assert await toy.wait_ended() == 0
    assert collector.spans == []
    assert bool(collector.points) == ("OTEL_SDK_DISABLED" not in off)
