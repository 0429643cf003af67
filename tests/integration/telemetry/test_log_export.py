"""Log lines exported as records of OpenTelemetry, whatever becomes of the exporter and the collector."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import grpc
import pytest

from tests.support.harness.collector import Collector
from tests.support.harness.http_collector import HttpCollector
from tests.support.harness.toy_process import toy_process
from tests.support.harness.waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
ON = {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_BLRP_SCHEDULE_DELAY": "50"}
WARNING, ERROR = 13, 17


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


async def test_lines_become_records(tmp_path: Path, collector: Collector) -> None:
    async with toy_process(tmp_path, environment=collector.environment | ON) as toy:
        await toy.wait_serving()
        await toy.get("traced", SAMPLED)
        record = await collector.record(lambda record: record.body == "Traced")
        line = await toy.line("Traced")
        with pytest.raises(grpc.aio.AioRpcError):
            await toy.get("bug")
        toy.process.terminate()
        assert await toy.wait_ended() == 0
        lines = toy.lines()
    assert (record.trace, record.span, record.scope) == (TRACE, line["span_id"], "toy")
    assert (record.severity, record.severity_number) == ("info", 9)
    assert record.attributes["traceparent"] == line["traceparent"]
    (failure,) = [record for record in collector.records if record.body == "Call failed"]
    assert failure.severity_number == ERROR
    assert failure.attributes["exception.type"] == "KeyError"
    assert "a secret of ours" in failure.attributes["exception.stacktrace"]
    assert [record.body for record in collector.records] == [line["message"] for line in lines]
    ids = {resource["service.instance.id"] for resource in collector.resources}
    assert len(ids) == 1


@pytest.mark.long
async def test_a_killed_process_exports_its_last_lines(tmp_path: Path, collector: Collector) -> None:
    slow = {"OTEL_BLRP_SCHEDULE_DELAY": "60000"}
    async with toy_process(tmp_path, environment=collector.environment | ON | slow) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        await toy.line("Traced")
        await until(lambda: find_exporter(toy.process.pid) is not None)
        toy.process.kill()
        await collector.record(lambda record: record.body == "Traced")


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def find_exporter(pid: int) -> int | None:
    """Return the pid of the exporter of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                if b"runtime.telemetry.log_exporter" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
    return None


@pytest.mark.long
async def test_an_exporter_that_dies_is_replaced_without_a_loss(tmp_path: Path, collector: Collector) -> None:
    async with toy_process(tmp_path, environment=collector.environment | ON) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        await collector.record(lambda record: record.body == "Traced")
        exporter = find_exporter(toy.process.pid)
        assert exporter
        os.kill(exporter, signal.SIGKILL)
        await toy.get("print-after")
        await collector.record(lambda record: record.body == "printed after", 30)
        await collector.record(lambda record: record.body == "Log exporter died; replacing it")


@pytest.mark.long
async def test_a_frozen_exporter_delays_neither_calls_nor_the_end(
    tmp_path: Path, collector: Collector
) -> None:
    async with toy_process(tmp_path, environment=collector.environment | ON) as toy:
        await toy.wait_serving()
        exporter = find_exporter(toy.process.pid)
        assert exporter
        os.kill(exporter, signal.SIGSTOP)
        for _ in range(20):
            await asyncio.gather(*[toy.get("traced", SAMPLED) for _ in range(50)])
        start = monotonic()
        toy.process.terminate()
        assert await toy.wait_ended() == 0
        assert monotonic() - start < 10
        assert toy.messages().count("Traced") == 1_000
        await until(lambda: not is_alive(exporter))


@pytest.mark.long
@pytest.mark.parametrize("fault", ["refuses", "hangs", "fails"])
async def test_a_collector_with_a_fault_gets_no_record_of_its_failures(tmp_path: Path, fault: str) -> None:
    """Lines about failed exports go to the stream, and are not exported again."""
    collector = HttpCollector()
    await collector.start()
    collector.hangs, collector.status = fault == "hangs", 400 if fault == "fails" else 200
    if fault == "refuses":
        await collector.stop()
    variables = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    options = {**variables, "OTEL_EXPORTER_OTLP_TIMEOUT": "500", **ON}
    try:
        async with toy_process(tmp_path, environment=collector.environment | options) as toy:
            await toy.wait_serving()
            for _ in range(4):
                await asyncio.gather(*[toy.get("traced", SAMPLED) for _ in range(50)])
            await until(lambda: "Telemetry export failed" in toy.messages(), 30)
            collector.hangs, collector.status = False, 200
            collector.released.set()
            if fault != "refuses":
                await toy.get("print-again")
                await collector.record(lambda record: record.body == "printed again")
            toy.process.terminate()
            assert await toy.wait_ended() == 0
    finally:
        if fault != "refuses":
            await collector.stop()
        assert toy.messages().count("Telemetry export failed") == 1
    assert not {record.body for record in collector.records} & {"Telemetry export failed", "Recovered"}


@pytest.mark.long
async def test_each_worker_exports_its_own_lines(tmp_path: Path, collector: Collector) -> None:
    async with toy_process(tmp_path, "--workers", "2", environment=collector.environment | ON) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        await collector.record(lambda record: record.body == "Traced")
        await collector.record(lambda record: record.body == "Worker started")
        toy.process.terminate()
        assert await toy.wait_ended() == 0
    assert len({resource["service.instance.id"] for resource in collector.resources}) == 3
    assert sum(record.body == "Ended" for record in collector.records) == 2
