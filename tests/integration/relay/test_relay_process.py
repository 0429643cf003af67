"""Relay processes: leaders and standbys that are killed, frozen, stopped and cut off."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.servers import Nats
from devstack.tcp_ports import free_port
from runtime.jetstream import Connection, connect
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.forked_process import ForkedChild
from tests.support.harness.keys import get_ring, ring_file
from tests.support.harness.log_lines import parse_log_line
from tests.support.harness.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING


class RelayProcess:
    """`python -m command_server.relay`, with its log."""

    def __init__(self, database_url: str, nats_url: str, port: int | None = None) -> None:
        self.lines: list[dict[str, str]] = []
        self.port = port or free_port()
        environment = os.environ | {
            "DIPTYCH_DATABASE_URL": database_url,
            "DIPTYCH_NATS_URL": nats_url,
            "DIPTYCH_RELAY_ADDRESS": f"127.0.0.1:{self.port}",
            "DIPTYCH_KEYS": str(ring_file()),
        }
        command = [sys.executable, "-m", "command_server.relay"]
        self.child = ForkedChild("relay", command, self._append, environment=environment)

    def _append(self, line: str) -> None:
        self.lines.append(parse_log_line(line))

    @property
    def leads(self) -> bool:
        changes = ("Lease acquired", "Lease not held")
        messages = [line["message"] for line in self.lines if line["message"] in changes]
        return self.child.running and messages[-1:] == ["Lease acquired"]

    async def serves(self) -> bool:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                health: Any = health_pb2_grpc.HealthStub(channel)
                response = await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
                return False
        return bool(response.status == SERVING)


@asynccontextmanager
async def relay_process(database_url: str, nats_url: str) -> AsyncIterator[RelayProcess]:
    process = RelayProcess(database_url, nats_url)
    await process.child.start()
    try:
        yield process
    finally:
        if process.child.running:
            await process.child.kill()


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.long)])
async def test_killed_leaders_are_replaced_without_loss_or_duplicates(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection, kills: int
) -> None:
    async with (
        relay_process(database_url, own_nats.url) as first,
        relay_process(database_url, own_nats.url) as second,
    ):
        async with feed.generate_load(writer):
            await until(lambda: first.leads or second.leads)
            for _ in range(kills):
                leader, standby = (first, second) if first.leads else (second, first)
                before = (await feed.wait_until_complete(observer)).last_sequence
                await leader.child.kill()
                await until(lambda standby=standby: standby.leads, seconds=10)  # type: ignore[misc]
                await leader.child.start()

                async def has_progressed(before: int = before) -> bool:
                    return (await feed.read_identity(observer)).last_sequence > before

                await until(has_progressed)
        await writer.wait_until_published()
        await feed.assert_whole(observer, writer)


async def test_a_frozen_leader_is_replaced_and_does_no_harm_after_its_thaw(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with (
        relay_process(database_url, own_nats.url) as first,
        relay_process(database_url, own_nats.url) as second,
    ):
        async with feed.generate_load(writer):
            await until(lambda: first.leads or second.leads)
            leader, standby = (first, second) if first.leads else (second, first)
            await feed.wait_until_complete(observer)
            leader.child.freeze()
            await until(lambda: standby.leads, seconds=10)
            leader.child.thaw()
            await until(lambda: not leader.leads)
        await writer.wait_until_published()
        await feed.assert_whole(observer, writer)


async def test_a_stopped_leader_exits_with_0_and_the_standby_leads_at_once(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async with relay_process(database_url, own_nats.url) as first:
        await until(lambda: first.leads)
        async with relay_process(database_url, own_nats.url) as second:
            await until(first.serves)
            await until(second.serves)
            await writer.commit("x", "y")
            await writer.wait_until_published()
            assert not second.leads
            assert await first.child.stop() == 0
            await until(lambda: second.leads, seconds=3)
            await writer.commit("x")
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)
            assert await second.child.stop() == 0


async def test_a_relay_without_nats_is_unhealthy_and_releases_its_lease(
    database_url: str, own_nats: Nats, writer: Writer, tmp_path: Path
) -> None:
    await writer.commit("x")
    await own_nats.kill()
    async with relay_process(database_url, own_nats.url) as process:
        await until(lambda: bool(process.lines))
        assert not await process.serves()
        await own_nats.start()
        await until(process.serves)
        await writer.wait_until_published()
        await own_nats.kill()

        async def has_released() -> bool:
            (leader,) = (await writer.query("SELECT leader FROM relay_state"))[0]
            return leader is None and not await process.serves()

        await until(has_released)
        await writer.commit("x")
        await own_nats.start()
        await until(process.serves)
        await writer.wait_until_published()
        async with await connect(own_nats.url, "observer", get_ring) as observer:
            await observer.wait_until_connected()
            await feed.assert_whole(observer, writer)
        assert await process.child.stop() == 0


async def test_a_relay_that_cannot_start_logs_one_line(database_url: str, own_nats: Nats) -> None:
    async with relay_process(database_url, own_nats.url) as process:
        await until(process.serves)
        other = RelayProcess(database_url, own_nats.url, process.port)
        await other.child.start()
        assert await other.child.wait_ended() == 1
        assert "cannot listen" in other.lines[-1]["message"]
