"""`GET /metrics` of a process, whatever its event loop, its workers and its clients do."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import pytest

from devstack.tcp_ports import free_port
from runtime.telemetry.metrics_endpoint import DEADLINE, MAX_CONNECTIONS
from tests.support.harness.scraper import OPENMETRICS, find_port, scrape
from tests.support.harness.toy_process import Toy, toy_process
from tests.support.harness.waiting import until

METHOD = "acme.ledger.v1.QueryService/GetCheque"
ON = {"DIPTYCH_METRICS_ADDRESS": "127.0.0.1:0"}
COUNT = "rpc_server_call_duration_seconds_count"


async def test_a_scrape_has_the_metrics_in_either_format(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment=ON) as toy:
        await toy.wait_serving()
        await toy.get("traced")
        await toy.get("slow-20")
        port = await find_port(toy)
        text, openmetrics = await scrape(port), await scrape(port, accept=OPENMETRICS)
    assert (text.kind, openmetrics.kind) == (
        "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )
    for answer in (text, openmetrics):
        assert answer.values(COUNT, rpc_method=METHOD, rpc_response_status_code="OK") == [2]
        assert answer.values("rpc_server_call_duration_seconds_bucket", le="+Inf", rpc_method=METHOD) == [2]
        assert answer.sum("rpc_server_call_duration_seconds_bucket", le="0.01", rpc_method=METHOD) == 1
        assert 0.01 < answer.sum("rpc_server_call_duration_seconds_sum") < 5
        assert answer.values("events_processed_total", event_type="toy", success="true") == [1]
        assert answer.values("target_info", service_namespace="diptych") == [1]
    assert openmetrics.families["rpc_server_call_duration_seconds"].unit == "seconds"


async def test_openmetrics_has_the_sampled_trace_of_a_call(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment=ON) as toy:
        await toy.wait_serving()
        await toy.get("c-1")
        await toy.get("slow-60", (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),))
        port = await find_port(toy)
        text, openmetrics = await scrape(port), await scrape(port, accept=OPENMETRICS)
    samples = openmetrics.families["rpc_server_call_duration_seconds"].samples
    ((bucket, exemplar),) = [(each.labels["le"], each.exemplar) for each in samples if each.exemplar]
    assert exemplar.labels == {"trace_id": "a" * 32, "span_id": "b" * 16}
    assert 0.05 < exemplar.value <= float(bucket)  # uvloop's timers may end a sleep somewhat early
    assert not any(each.exemplar for each in text.families["rpc_server_call_duration_seconds"].samples)


@pytest.mark.long
async def test_only_get_of_metrics_is_answered(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment=ON) as toy:
        port = await find_port(toy)
        assert (await scrape(port, "/metrics?name[]=x")).status == 200
        assert (await scrape(port, "/")).status == 404
        assert (await scrape(port, "/metrics/..")).status == 404
        for method in ("POST", "HEAD", "DELETE"):
            assert (await scrape(port, method=method)).status == 405
        for request in (b"nonsense\r\n\r\n", b"GET /metrics HTTP/9\r\n\r\n", b"GET " + b"x" * 70_000):
            assert (await send(port, request)).startswith(b"HTTP/1.1 400")
        assert (await send(port, b"GET /metrics HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"))[9:12] == b"200"
        assert toy.stderr() == ""


async def send(port: int, data: bytes) -> bytes:
    """Send bytes and return the answer; the endpoint closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


@pytest.mark.long
async def test_scrapes_are_answered_while_the_loop_stands_still(tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with toy_process(tmp_path, environment={**ON, "TOY_RELEASE": str(release)}) as toy:
        await toy.wait_serving()
        await toy.get("c-1")
        port = await find_port(toy)
        blocked = asyncio.create_task(toy.get("block"))
        await until(lambda: is_silent(toy), 30)
        assert (await scrape(port)).sum(COUNT, rpc_method=METHOD) >= 1
        release.touch()
        await blocked


async def is_silent(toy: Toy) -> bool:
    try:
        await toy.get("c-2", seconds=0.5)
    except Exception:
        return True
    return False


@pytest.mark.long
async def test_slow_and_many_clients_are_bounded(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment=ON) as toy, AsyncExitStack() as stack:
        port = await find_port(toy)
        start = monotonic()
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        for _, writer in slow:
            stack.callback(writer.close)
            writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert await read_to_end(reader) == b""  # one connection too many
        for reader, _ in slow:
            assert await read_to_end(reader) == b""
        assert monotonic() - start < DEADLINE + 10
        assert (await scrape(port)).status == 200
        answers = await asyncio.gather(*[scrape(port) for _ in range(MAX_CONNECTIONS // 2)])
        assert {answer.status for answer in answers} == {200}
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        toy.process.terminate()
        assert await toy.wait_ended() == 0
        assert [line["message"] for line in toy.lines() if line["level"] in ("warning", "error")] == []


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE + 10)
    except ConnectionError:
        return b""


@pytest.mark.long
async def test_a_taken_address_ends_the_start(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", free_port())
    address = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
    async with taken, toy_process(tmp_path, environment={"DIPTYCH_METRICS_ADDRESS": address}) as toy:
        assert await toy.wait_ended() == 1
        name = "tests.support.harness.toy_server"
        cause = f"cannot listen on {address}: Address already in use"
        assert toy.stderr() == f"{name}: DIPTYCH_METRICS_ADDRESS: {cause}\n"


@pytest.mark.long
async def test_the_exporter_prometheus_has_its_own_address(tmp_path: Path) -> None:
    port = free_port()
    variables = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": str(port)}
    async with toy_process(tmp_path, environment=variables) as toy:
        await toy.wait_serving()
        await toy.get("c-1")
        assert (await scrape(port)).sum(COUNT, rpc_method=METHOD) == 1


@pytest.mark.long
async def test_a_parent_answers_for_all_workers(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2", environment=ON) as toy, AsyncExitStack() as stack:
        await toy.wait_serving()
        port = await find_port(toy)
        (killed, frozen), calls = await call_all_workers(toy, 2)
        await until(lambda: has_counted(port, calls), 30)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: has_replacement(port), 30)
        assert await has_counted(port, calls)
        os.kill(frozen, signal.SIGSTOP)
        stack.callback(os.kill, frozen, signal.SIGKILL)
        await until(lambda: has_frozen_worker(port), 30)
        assert await has_counted(port, calls)


async def call_all_workers(toy: Toy, workers: int) -> tuple[set[int], int]:
    """Call until this many workers have answered; return their pids, which the toy states, and the calls."""
    pids: set[int] = set()
    calls = 0
    async with asyncio.timeout(60):
        while len(pids) < workers:
            async with toy.reconnected() as other:
                cheque = await other.get("c-1")
            calls += 1
            pids.add(int(cheque.void_reason))
    return pids, calls


async def has_counted(port: int, calls: int) -> bool:
    return (await scrape(port)).sum(COUNT, rpc_method=METHOD) == calls


async def has_replacement(port: int) -> bool:
    answer = await scrape(port)
    return (
        answer.sum("diptych_worker_replaced_total") == 1 and answer.sum("diptych_worker_answering_ratio") == 2
    )


async def has_frozen_worker(port: int) -> bool:
    return (await scrape(port)).sum("diptych_worker_answering_ratio") == 1
