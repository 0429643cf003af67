"""Events that NATS refuses because of their size: the feed waits, says so, and continues once they fit."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from command_server.relay import notifier as notifier_module
from command_server.relay.notifier import RelayNotifier
from contracts.envelope import DEFAULT_MAX_PAYLOAD, max_data_bytes
from devstack.servers import Nats
from devstack.tcp_ports import free_port
from runtime.jetstream import Connection, connect
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.keys import get_ring
from tests.support.harness.limited_nats import LimitedNats
from tests.support.harness.log_lines import own_lines
from tests.support.harness.waiting import until

LIMIT = 20_000


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[LimitedNats]:
    server = LimitedNats(tmp_path / "nats", free_port())
    server.set_max_payload(LIMIT)
    async with server:
        yield server


async def test_small_events_are_published_to_a_server_with_a_low_limit(
    database_url: str, nats: LimitedNats, writer: Writer
) -> None:
    async with feed.relay(database_url, nats.url) as relay:
        await writer.commit("x", data=b"x" * (LIMIT - 2_000))
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)


async def test_a_larger_event_blocks_the_feed_until_the_limit_is_raised(
    database_url: str, nats: LimitedNats, writer: Writer
) -> None:
    with own_lines() as lines:
        async with feed.relay(database_url, nats.url) as relay:
            await writer.commit("x", "x", data=b"small")
            await writer.commit("x", data=b"x" * LIMIT)
            await writer.commit("y")
            await until(lambda: relay.relay.blocked)
            identity = await feed.read_identity(relay.connection)
            assert identity is not None and identity.last_sequence == 2
            (blocked,) = lines.of("Feed blocked by a large event")
            assert "a.b.x@3 makes a message of" in blocked["error"]
            assert f"max_payload is {LIMIT}: raise it" in blocked["error"]
            nats.set_max_payload(2 * LIMIT)  # a reload, of which no client hears
            await writer.wait_until_published()
            await until(lambda: not relay.relay.blocked)
            await feed.assert_whole(relay.connection, writer)
        assert lines.of("Feed no longer blocked")


@pytest.mark.long
async def test_a_limit_that_is_lowered_while_the_relay_runs_blocks_only_what_is_larger(
    database_url: str, nats: LimitedNats, writer: Writer
) -> None:
    nats.set_max_payload(5 * LIMIT)
    async with feed.relay(database_url, nats.url) as relay:
        await writer.commit("x", data=b"x" * LIMIT)
        await writer.wait_until_published()
        nats.set_max_payload(LIMIT)
        await writer.commit("y")
        await writer.wait_until_published()
        await writer.commit("x", data=b"x" * LIMIT)
        await until(lambda: relay.relay.blocked)
        nats.set_max_payload(5 * LIMIT)
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)


@pytest.mark.parametrize("letters", [1, 400], ids=["usual metadata", "large metadata"])
async def test_every_event_that_a_command_may_record_is_published(
    letters: int, database_url: str, nats: LimitedNats, writer: Writer
) -> None:
    names = (
        "actor",
        "on_behalf_of",
        "command",
        "correlation_id",
        "causation_id",
        "traceparent",
        "time_set_aside",
        "rejected",
    )
    metadata = json.dumps(dict.fromkeys(names, "ä" * letters), ensure_ascii=False)
    stream = "n" * 64
    most = max_data_bytes(LIMIT, f"a.b.{stream}", "a.v1.Happened", metadata)
    async with feed.relay(database_url, nats.url) as relay:
        await writer.commit(stream, data=b"x" * most, metadata=metadata)
        await writer.commit(*["y"] * 3, data=b"x" * 10_000)
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)


async def test_a_command_server_learns_the_limit(nats: LimitedNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "LIMIT_INTERVAL", 0.05)
    notifier = RelayNotifier(nats.url)
    assert notifier.max_payload == DEFAULT_MAX_PAYLOAD  # before the first connection
    task = asyncio.create_task(notifier.run())
    await until(lambda: notifier.max_payload == LIMIT)
    nats.set_max_payload(3 * LIMIT)
    await until(lambda: notifier.max_payload == 3 * LIMIT)
    await nats.stop()
    await until(lambda: notifier._connection is not None and not notifier._connection.connected)
    assert notifier.max_payload == 3 * LIMIT  # the last known, while NATS is away
    await cancel_and_wait(task)


async def test_a_server_that_does_not_greet_keeps_the_known_limit(connection_to_own: Connection) -> None:
    before = connection_to_own.max_payload
    await connection_to_own.close()
    await connection_to_own.refresh_max_payload()
    assert connection_to_own.max_payload == before == DEFAULT_MAX_PAYLOAD


@pytest.fixture
async def connection_to_own(own_nats: Nats) -> Connection:
    connection = await connect(own_nats.url, "test", get_ring)
    await connection.wait_until_connected()
    return connection
