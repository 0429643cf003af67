"""How a serving process starts, stops, dies and is replaced, as its callers and its operator see it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.ports import free_port
from tests.support.harness.toy_process import NOT_SERVING, SERVING, Toy, toy_process
from tests.support.harness.toy_server import QUEUE
from tests.support.harness.waiting import until as until_within


async def until(holds: Callable[[], Awaitable[bool] | bool]) -> None:
    await until_within(holds, 60)  # a busy machine may take long to start a process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.serving()
        toy.process.send_signal(number)
        assert await toy.ended() == 0
        assert toy.stderr() == ""


class Load:
    """Callers that call one after the other until the server is gone."""

    def __init__(self, toy: Toy) -> None:
        self.answered = 0
        self.failures: list[grpc.aio.AioRpcError] = []
        self._toy = toy

    async def caller(self) -> None:
        while True:
            try:
                await self._toy.get("slow-10")
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                return
            self.answered += 1


async def test_no_accepted_request_fails_when_the_process_stops_under_load(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.serving()
        load = Load(toy)
        callers = [asyncio.create_task(load.caller()) for _ in range(64)]
        long = asyncio.create_task(toy.get("slow-700"))
        await until(lambda: load.answered > 500)
        assert load.failures == []
        toy.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*callers)
        assert (await long).order_id == "slow-700"
        assert await toy.ended() == 0
        assert {error.code() for error in load.failures} == {StatusCode.UNAVAILABLE}, "what callers retry"
        assert [line["begun"] for line in toy.lines() if line["message"] == "Ended"] == [load.answered + 1]


async def test_too_many_calls_are_turned_away_at_once_and_the_rest_and_probes_are_answered(
    tmp_path: Path,
) -> None:
    probe_address, release = f"127.0.0.1:{free_port()}", tmp_path / "release"
    environment = {"DIPTYCH_QUERY_PROBE_ADDRESS": probe_address, "TOY_RELEASE": str(release)}
    async with (
        toy_process(tmp_path, environment=environment) as toy,
        grpc.aio.insecure_channel(probe_address) as channel,
    ):
        await toy.serving()
        probe: Any = health_pb2_grpc.HealthStub(channel)
        await probe.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        calls = [asyncio.create_task(toy.get(f"o-{n}" if n else "block")) for n in range(20 * QUEUE)]
        check = asyncio.ensure_future(probe.Check(health_pb2.HealthCheckRequest(), timeout=60))
        await until(lambda: any(call.done() for call in calls))  # the server itself does nothing yet
        release.touch()
        assert (await check).status == SERVING
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert set(refused) == {StatusCode.CANCELLED}
        assert len(answers) - len(refused) >= QUEUE
        assert (await toy.get("o-1")).order_id == "o-1"


async def test_whoever_watches_health_is_told_of_the_stop_and_does_not_hold_it_up(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"DIPTYCH_STOP_GRACE": "30"}) as toy:
        await toy.serving()
        watch = aiter(toy.health.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == SERVING
        under_way = asyncio.create_task(toy.get("slow-300"))
        await asyncio.sleep(0)
        await toy.get("o-1")
        toy.process.send_signal(signal.SIGTERM)
        assert (await anext(watch)).status == NOT_SERVING
        assert [answer async for answer in watch] == []
        assert (await under_way).order_id == "slow-300"
        assert await toy.ended(5) == 0


async def test_a_call_that_outlasts_the_grace_is_cut_off(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"DIPTYCH_STOP_GRACE": "0.3"}) as toy:
        await toy.serving()
        endless = asyncio.create_task(toy.get("slow-60000"))
        await toy.get("o-1")
        toy.process.send_signal(signal.SIGTERM)
        assert await toy.ended(5) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await endless


async def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    async with listener:
        for arguments in ((), ("--workers", "2")):
            async with toy_process(tmp_path, *arguments, port=port) as toy:
                assert await toy.ended() == 1
                (line,) = toy.stderr().splitlines()
                assert line.endswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"DIPTYCH_STOP_GRACE": "soon"}, "DIPTYCH_STOP_GRACE"),
        ({"DIPTYCH_LOG_LEVEL": "loud"}, "DIPTYCH_LOG_LEVEL"),
        ({"DIPTYCH_JWKS": "/nowhere/jwks.json"}, "DIPTYCH_JWKS=/nowhere/jwks.json"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
    ],
)
async def test_a_wrong_setting_is_refused_in_one_line(
    tmp_path: Path, environment: dict[str, str], says: str
) -> None:
    async with toy_process(tmp_path, environment=environment) as toy:
        assert await toy.ended() == 1
        (line,) = toy.stderr().splitlines()
        assert says in line


async def test_a_process_does_not_live_on_without_one_of_its_parts(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.serving()
        await toy.get("die")
        assert await toy.ended() == 70
        (line,) = [line for line in toy.lines() if line["level"] == "error"]
        assert line["task"] == "part"
        assert "RuntimeError: a part of the process is dead" in line["exception"]


# Workers


async def pids(toy: Toy, count: int) -> set[str]:
    """Call over new connections until so many workers have answered."""
    found: set[str] = set()

    async def another() -> bool:
        async with toy.connected_anew() as other:
            with suppress(grpc.aio.AioRpcError):
                found.add((await other.get("o-1")).warehouse_id)
        return len(found) == count

    await until(another)
    return found


async def test_workers_share_an_address_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2") as toy:
        await toy.serving()
        first = await pids(toy, 2)
        victim = first.pop()
        os.kill(int(victim), signal.SIGKILL)
        await until(lambda: toy.messages().count("A worker runs") == 3)
        replaced = next(line["pid"] for line in reversed(toy.lines()) if line["message"] == "A worker runs")
        assert await pids(toy, 2) == first | {str(replaced)}
        toy.process.send_signal(signal.SIGTERM)
        assert await toy.ended() == 0
        assert toy.messages().count("Ended") == 2
        assert toy.stderr() == ""


async def test_no_accepted_request_fails_when_workers_stop_under_load(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2") as toy:
        await toy.serving()
        load = Load(toy)
        callers = [asyncio.create_task(load.caller()) for _ in range(32)]
        await until(lambda: load.answered > 200)
        toy.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*callers)
        assert await toy.ended() == 0
        assert {error.code() for error in load.failures} == {StatusCode.UNAVAILABLE}
        assert sum(line["begun"] for line in toy.lines() if line["message"] == "Ended") == load.answered


async def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--workers", "2") as toy:
        await toy.serving()
        children = await pids(toy, 2)
        toy.process.kill()
        await toy.ended()
        await until(lambda: toy.messages().count("Ended") == 2)
        await until(lambda: not any(alive(pid) for pid in children))


async def test_workers_that_cannot_start_end_the_parent(tmp_path: Path) -> None:
    async with toy_process(
        tmp_path, "--workers", "2", environment={"DIPTYCH_JWKS": "/nowhere/jwks.json"}
    ) as toy:
        assert await toy.ended() == 1
        assert "DIPTYCH_JWKS=/nowhere/jwks.json" in toy.stderr()


@pytest.mark.parametrize("count", ["0", "-1", "many"])
async def test_a_number_of_workers_that_is_none_is_refused(tmp_path: Path, count: str) -> None:
    async with toy_process(tmp_path, "--workers", count) as toy:
        assert await toy.ended() == 2


async def test_a_context_that_there_is_not_is_refused(tmp_path: Path) -> None:
    async with toy_process(tmp_path, "--contexts", "toys,dolls") as toy:
        assert await toy.ended() == 2


def alive(pid: Any) -> bool:
    return Path(f"/proc/{pid}").exists()
