"""Notifications of commits, against a real NATS server that goes away and returns."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop

from command_server.relay.notifier import RelayNotifier
from contracts import streams
from devstack.servers import Nats
from runtime.jetstream import Connection, connect
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.keys import get_ring
from tests.support.harness.waiting import until


@pytest.fixture
async def notifier(own_nats: Nats) -> AsyncIterator[RelayNotifier]:
    notifier = RelayNotifier(own_nats.url)
    notifier.notify()  # before there is a connection: dropped
    task = asyncio.create_task(notifier.run())
    yield notifier
    await cancel_and_wait(task)


def is_connected(notifier: RelayNotifier) -> bool:
    return notifier._connection is not None and notifier._connection.connected


async def flush(connection: Connection) -> None:
    """Wait until the server has all that was sent; the ping of nats-py overtakes what waits to be written."""
    await until(lambda: not connection.client.pending_data_size)
    await connection.client.flush()


async def record_notifications(connection: Connection) -> list[str]:
    """Return a list that gets the subject of each notification from now on."""
    received: list[str] = []
    await connection.subscribe(streams.WAKE_SUBJECT, lambda subject, *_: received.append(subject))
    await flush(connection)
    return received


async def test_each_notification_is_sent_before_the_loop_runs_anything_else(
    own_nats: Nats, notifier: RelayNotifier
) -> None:
    async with await connect(own_nats.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        received = await record_notifications(connection)
        await until(lambda: is_connected(notifier))
        for _ in range(3):
            notifier.notify()
        own = notifier._connection
        assert own is not None and own.client.pending_data_size == 0
        await until(lambda: len(received) >= 3)


async def test_a_waiting_message_is_sent_before_the_notification(notifier: RelayNotifier) -> None:
    await until(lambda: is_connected(notifier))
    own = notifier._connection
    assert own is not None
    received = await record_notifications(own)
    await own.subscribe("earlier", lambda subject, *_: received.append(subject))
    await flush(own)
    publication = asyncio.create_task(own.client.publish("earlier"))
    await asyncio.sleep(0)
    assert own.client.pending_data_size  # the message waits for the client's task
    notifier.notify()
    await publication
    await until(lambda: received == ["earlier", streams.WAKE_SUBJECT])


async def test_a_notification_on_a_lost_connection_is_no_error(own_nats: Nats) -> None:
    async def lose_connection() -> None:
        async with await connect(own_nats.url, "test", get_ring) as connection:
            await connection.wait_until_connected()
            assert connection._client._transport is not None
            connection._client._transport.close()  # type: ignore[no-untyped-call]
            await asyncio.sleep(0)
            assert connection.connected  # the client has not noticed it yet
            connection.send_signal(streams.WAKE_SUBJECT)

    # The processes' event loop; that of asyncio ignores what is written to a closed transport.
    await asyncio.to_thread(uvloop.run, lose_connection())


async def test_notifications_without_a_server_are_dropped(own_nats: Nats, notifier: RelayNotifier) -> None:
    await until(lambda: is_connected(notifier))
    await own_nats.kill()
    for _ in range(10):
        notifier.notify()
        await asyncio.sleep(0)
    await until(lambda: not is_connected(notifier))
    notifier.notify()
    await own_nats.start()
    async with await connect(own_nats.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        received = await record_notifications(connection)
        await until(lambda: is_connected(notifier))
        notifier.notify()
        await until(lambda: len(received) == 1)
