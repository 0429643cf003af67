"""Start, stop, failure and replacement of a serving process, as seen by its callers and its operator."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from devstack.tcp_ports import free_port
from tests.support.harness.toy_process import NOT_SERVING, SERVING, Toy, toy_process
from tests.support.harness.waiting import until as until_within


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    await until_within(condition, 60)  # a busy machine may take long to start a process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        toy.process.send_signal(number)
        assert await toy.wait_ended() == 0
        assert toy.stderr() == ""


class Load:
    """Counts the calls of clients that each call in a loop until the server is unavailable."""

    def __init__(self, toy: Toy) -> None:
        self.answered = 0
        self.failures: list[grpc.aio.AioRpcError] = []
        self._toy = toy

    async def run_client(self) -> None:
        while True:
            try:
                await self._toy.get("slow-10")
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                return
            self.answered += 1


async def test_no_accepted_request_fails_when_the_process_stops_under_load(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        load = Load(toy)
        clients = [asyncio.create_task(load.run_client()) for _ in range(64)]
        long_call = asyncio.create_task(toy.get("slow-700"))
        await until(lambda: load.answered > 500)
        assert load.failures == []
        toy.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert (await long_call).cheque_id == "slow-700"
        assert await toy.wait_ended() == 0
        assert {error.code() for error in load.failures} == {StatusCode.UNAVAILABLE}, (
            "the status that clients retry"
        )
        assert [line["calls"] for line in toy.lines() if line["message"] == "Ended"] == [load.answered + 1]


@pytest.mark.long
async def test_no_accepted_request_fails_in_ten_stops_under_load(tmp_path: Path) -> None:
    for number in range(10):
        (folder := tmp_path / str(number)).mkdir()
        await test_no_accepted_request_fails_when_the_process_stops_under_load(folder)


async def test_a_thousand_watches_end_with_the_process(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy, AsyncExitStack() as others:
        await toy.wait_serving()
        watches: list[Any] = []
        for _ in range(20):  # grpc.aio sheds more at a time
            other = await others.enter_async_context(toy.reconnected())
            watches += [aiter(other.health.Watch(health_pb2.HealthCheckRequest())) for _ in range(50)]
            answers = await asyncio.gather(*(anext(watch) for watch in watches[-50:]))
            assert {answer.status for answer in answers} == {SERVING}
        toy.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*(anext(watch) for watch in watches))
        assert {answer.status for answer in answers} == {NOT_SERVING}
        assert await asyncio.gather(*(anext(watch, None) for watch in watches)) == [None] * 1000
        assert await toy.wait_ended() == 0
        assert toy.stderr() == ""


async def test_a_killed_process_ends_its_calls_as_unavailable(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        calls = [asyncio.ensure_future(toy.get("slow-60000")) for _ in range(20)]
        await toy.get("c-1")
        toy.process.kill()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        codes = {error.code() for error in errors if isinstance(error, grpc.aio.AioRpcError)}
        assert codes == {StatusCode.UNAVAILABLE}


async def test_health_watchers_are_notified_of_the_stop_and_do_not_delay_it(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"DIPTYCH_STOP_GRACE": "30"}) as toy:
        await toy.wait_serving()
        watch = aiter(toy.health.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == SERVING
        slow_call = asyncio.create_task(toy.get("slow-300"))
        await asyncio.sleep(0)
        await toy.get("c-1")
        toy.process.send_signal(signal.SIGTERM)
        assert (await anext(watch)).status == NOT_SERVING
        assert [response async for response in watch] == []
        assert (await slow_call).cheque_id == "slow-300"
        assert await toy.wait_ended(5) == 0


async def test_a_call_that_exceeds_the_stop_grace_is_cut_off(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"DIPTYCH_STOP_GRACE": "0.3"}) as toy:
        await toy.wait_serving()
        endless = asyncio.create_task(toy.get("slow-60000"))
        await toy.get("c-1")
        toy.process.send_signal(signal.SIGTERM)
        assert await toy.wait_ended(5) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await endless


async def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    async with listener:
        for arguments in ((), ("--workers", "2")):
            async with toy_process(tmp_path, *arguments, port=port) as toy:
                assert await toy.wait_ended() == 1
                (line,) = toy.stderr().splitlines()
                assert line.endswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DIPTYCH_STOP_GRACE": "soon"}, "DIPTYCH_STOP_GRACE"),
        ({"DIPTYCH_LOG_LEVEL": "loud"}, "DIPTYCH_LOG_LEVEL"),
        ({"DIPTYCH_JWKS": "/nowhere/jwks.json"}, "DIPTYCH_JWKS=/nowhere/jwks.json"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
    ],
)
async def test_an_invalid_setting_is_reported_in_one_line(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    async with toy_process(tmp_path, environment=environment) as toy:
        assert await toy.wait_ended() == 2
        (line,) = toy.stderr().splitlines()
        assert message in line


async def test_a_process_ends_when_one_of_its_tasks_fails(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        await toy.get("die")
        assert await toy.wait_ended() == 70
        (line,) = [line for line in toy.lines() if line["level"] == "error"]
        assert line["task"] == "part"
        assert "RuntimeError: a part of the process is dead" in line["exception"]


# Workers


async def find_pids(toy: Toy, count: int) -> set[str]:
    """Call over new connections until this number of workers have answered; return their process ids."""
    pids: set[str] = set()

    async def call_over_new_connection() -> bool:
        async with toy.reconnected() as other:
            with suppress(grpc.aio.AioRpcError):
                pids.add((await other.get("c-1")).void_reason)
        return len(pids) == count

    await until(call_over_new_connection)
    return pids


async def test_workers_share_an_address_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2") as toy:
        await toy.wait_serving()
        pids = await find_pids(toy, 2)
        victim = pids.pop()
        os.kill(int(victim), signal.SIGKILL)
        await until(lambda: toy.messages().count("Worker started") == 3)
        replacement = next(
            line["pid"] for line in reversed(toy.lines()) if line["message"] == "Worker started"
        )
        assert await find_pids(toy, 2) == pids | {str(replacement)}
        toy.process.send_signal(signal.SIGTERM)
        assert await toy.wait_ended() == 0
        assert toy.messages().count("Ended") == 2
        assert toy.stderr() == ""


async def test_no_accepted_request_fails_when_workers_stop_under_load(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2") as toy:
        await toy.wait_serving()
        load = Load(toy)
        clients = [asyncio.create_task(load.run_client()) for _ in range(32)]
        await until(lambda: load.answered > 200)
        toy.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert await toy.wait_ended() == 0
        codes = {error.code() for error in load.failures}
        assert StatusCode.UNAVAILABLE in codes
        assert codes <= {StatusCode.UNAVAILABLE, StatusCode.CANCELLED}, "calls that no worker accepted"
        assert sum(line["calls"] for line in toy.lines() if line["message"] == "Ended") == load.answered


async def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2") as toy:
        await toy.wait_serving()
        workers = await find_pids(toy, 2)
        toy.process.kill()
        await toy.wait_ended()
        await until(lambda: toy.messages().count("Ended") == 2)
        await until(lambda: not any(is_alive(pid) for pid in workers))


async def test_workers_that_cannot_start_end_the_parent(tmp_path: Path) -> None:
    async with toy_process(
        tmp_path, "--workers", "2", environment={"DIPTYCH_JWKS": "/nowhere/jwks.json"}
    ) as toy:
        assert await toy.wait_ended() == 2
        assert "DIPTYCH_JWKS=/nowhere/jwks.json" in toy.stderr()


@pytest.mark.parametrize("count", ["0", "-1", "many"])
async def test_an_invalid_number_of_workers_is_rejected(tmp_path: Path, count: str) -> None:
    async with toy_process(tmp_path, "--workers", count) as toy:
        assert await toy.wait_ended() == 2


async def test_an_unknown_context_is_rejected(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--contexts", "toys,dolls") as toy:
        assert await toy.wait_ended() == 2


def is_alive(pid: Any) -> bool:
    return Path(f"/proc/{pid}").exists()


# An event loop that stands still

WATCHED = {"DIPTYCH_STALL_REPORT": "1", "DIPTYCH_STALL_EXIT": "3"}


def environment_of(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**WATCHED, "TOY_RELEASE": str(tmp_path / "release"), **more}


async def check_liveness(toy: Toy, seconds: float = 1.0) -> StatusCode | int:
    """Return the health of the service `liveness`, or the status of the failed call."""
    try:
        request = health_pb2.HealthCheckRequest(service="liveness")
        return int((await toy.health.Check(request, timeout=seconds)).status)
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_a_loop_that_stands_still_is_reported_with_its_stack_and_not_alive(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment=environment_of(tmp_path, DIPTYCH_STALL_EXIT="0")) as toy:
        await toy.wait_serving()
        assert await check_liveness(toy, 60) == SERVING
        call = asyncio.create_task(toy.get("block"))
        report = await toy.line("Event loop stands still", 60)
        assert "block_until" in report["stack"]
        assert await check_liveness(toy) is StatusCode.DEADLINE_EXCEEDED
        (tmp_path / "release").touch()
        await call
        assert (await toy.line("Event loop turns again", 60))["seconds"] >= 1
        assert await check_liveness(toy, 60) == SERVING


@pytest.mark.long
async def test_a_process_whose_loop_stands_still_for_long_ends(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment=environment_of(tmp_path)) as toy:
        await toy.wait_serving()
        call = asyncio.create_task(toy.get("block"))
        assert await toy.wait_ended() == 70
        assert toy.messages()[-1] == "Event loop stands still; ending process"
        with pytest.raises(grpc.aio.AioRpcError):
            await call


@pytest.mark.long
async def test_a_worker_whose_loop_stands_still_is_replaced(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2", environment=environment_of(tmp_path)) as toy:
        await toy.wait_serving()
        async with toy.reconnected() as other:
            with pytest.raises(grpc.aio.AioRpcError):
                await other.get("block")
        await until(lambda: toy.messages().count("Worker started") == 3)
        await find_pids(toy, 2)


@pytest.mark.long
async def test_a_frozen_process_continues_and_reports_nothing(tmp_path: Path) -> None:
    # A suspension counts as one look of the watchdog, which is two seconds at most.
    environment = environment_of(tmp_path, DIPTYCH_STALL_REPORT="4", DIPTYCH_STALL_EXIT="5")
    async with toy_process(tmp_path, environment=environment) as toy:
        await toy.wait_serving()
        for _ in range(3):
            toy.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(6)  # the length of the suspension, not a wait for anything
            toy.process.send_signal(signal.SIGCONT)
            await toy.get("c-1")
        assert not [message for message in toy.messages() if message.startswith("Event loop")]


@pytest.mark.parametrize("name", ["DIPTYCH_STALL_REPORT", "DIPTYCH_STALL_EXIT"])
async def test_an_invalid_time_to_stand_still_is_reported_in_one_line(tmp_path: Path, name: str) -> None:
    async with toy_process(tmp_path, environment={name: "-1"}) as toy:
        assert await toy.wait_ended() == 2
        (line,) = toy.stderr().splitlines()
        assert line.startswith(f"settings: {name}: ")
