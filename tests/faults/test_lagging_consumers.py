"""A consumer whose server lags behind the stream: no cursor passes over what it has not received."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import pytest

from contracts import streams
from devstack.servers import Nats
from runtime.jetstream import Connection, Cursor, SharedReader, connect
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.keys import get_ring
from tests.support.harness.nats_cluster import ClusteredNats, NatsCluster
from tests.support.harness.shared_reading import ALL, make_stream, publish
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long

ROUNDS = 8
FROZEN = 1.0
"""Seconds of a freeze, in which the stream is checked and the rest of the cluster stores messages."""
SETTLED = 3.0
"""Seconds in which the server catches up; its consumer learned of messages up to that late."""


class CheckedReader:
    """Reads by a cursor, and asserts that no position exceeds a message that was not returned."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self.returned: list[int] = []

    async def read(self, seconds: float) -> None:
        ends_at = monotonic() + seconds
        while monotonic() < ends_at:
            await self.read_once()

    async def read_once(self) -> int:
        self.returned += [message.sequence for message in await self._cursor.read_batch(500, 0.1)]
        claimed = min(self._cursor.read_positions().values())
        missing = set(range(1, claimed + 1)) - set(self.returned)
        assert not missing, f"positions are at {claimed}, {missing} were not returned"
        return len(self.returned)


async def find_consumer_server(cluster: NatsCluster, observer: Connection) -> ClusteredNats:
    """Return the server of the only consumer."""
    (consumer,) = await observer.js.consumers_info(streams.JETSTREAM)
    assert consumer.cluster is not None
    assert consumer.cluster.leader is not None
    return cluster.servers[int(consumer.cluster.leader.removeprefix("n"))]


async def separate(cluster: NatsCluster, observer: Connection, own: Nats) -> ClusteredNats:
    """Make the consumer's server a follower that is not the observer's; return it."""
    holder = await find_consumer_server(cluster, observer)

    async def is_follower() -> bool:
        if await cluster.find_leader(observer) is not holder:
            return True
        await cluster.step_down(observer)
        return False

    assert holder is not own, "a consumer is created where the stream's leader is"
    await until(is_follower, 60)
    return holder


async def test_a_consumer_on_a_lagging_follower_loses_no_message(tmp_path: Path) -> None:
    async with AsyncExitStack() as resources:
        cluster = await resources.enter_async_context(NatsCluster(tmp_path, 3, sync_always=False))
        observer = await resources.enter_async_context(await connect(cluster.url, "test", get_ring))
        await observer.wait_until_connected()
        epoch = await make_stream(observer)
        await cluster.replicate(observer)
        leader = await cluster.find_leader(observer)
        # The connection must not be that of the server that freezes.
        own = cluster.servers[(leader.number + 1) % 3]
        connection = await resources.enter_async_context(await connect(own.url, "reader", get_ring))
        await connection.wait_until_connected()
        await publish(connection, [("a.b", n % 16) for n in range(100)])
        shared = SharedReader(connection, lambda: ALL)
        checks = asyncio.create_task(shared.run())
        cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), ["a.b"])
        reader = CheckedReader(cursor)
        follower = await separate(cluster, connection, own)
        total = 100
        for _ in range(ROUNDS):
            follower.child.freeze()
            try:
                await publish(connection, [("a.b", n % 16) for n in range(5)])
                total += 5
                await reader.read(FROZEN)
            finally:
                follower.child.thaw()
            await reader.read(SETTLED)

        async def has_all() -> bool:
            return await reader.read_once() >= total

        await until(has_all, 60)
        assert reader.returned == list(range(1, total + 1))
        await publish(connection, [("d.e", n % 16) for n in range(5)])

        async def have_followed() -> bool:
            await cursor.read_batch(500, 0.1)
            return min(cursor.read_positions().values()) == total + 5

        await until(have_followed)
        await cursor.close()
        await cancel_and_wait(checks)
