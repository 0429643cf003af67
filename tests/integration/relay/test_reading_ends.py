"""The ends of a shared reading, and so the positions of its cursors: none passes over a message."""

from dataclasses import replace
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from contracts import streams
from runtime.jetstream import Connection, SharedReader, StreamIdentity, end_checks, read_stream_identity
from runtime.jetstream.stream import FORMER_LEADER_TIME
from tests.support.harness.log_lines import own_lines
from tests.support.harness.shared_reading import (
    ALL,
    SMALL,
    TYPES,
    HeldMessages,
    make_stream,
    publish,
    read,
    share,
    wait_for_checks,
)
from tests.support.harness.waiting import until


async def test_positions_follow_the_stream_where_no_message_arrives(connection: Connection) -> None:
    epoch = await make_stream(connection)
    async with share(connection, {1, 2}) as shared:
        cursor = await shared.open(epoch, {1: 1, 2: 1}, ["a.b"])
        await publish(connection, [("a.c", 5), ("a.b", 1), ("a.c", 5)])

        async def have_followed() -> bool:
            await cursor.read_batch(10, 0.1)
            return cursor.read_positions() == {1: 3, 2: 3}

        await until(have_followed)
        await cursor.close()


async def test_no_position_exceeds_a_message_that_still_waits_in_a_consumer(connection: Connection) -> None:
    epoch = await make_stream(connection)
    async with share(connection) as shared:
        cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
        await publish(connection, [("a.b", 1)] * 90)  # the reading pauses before it has all of them
        (reader,) = shared._readers
        checks = set()

        async def was_checked() -> bool:
            checks.add(id(shared.latest_check))
            (consumer,) = await connection.js.consumers_info(streams.JETSTREAM)
            return len(checks) > 3 and consumer.num_pending == 0

        await until(was_checked)
        assert reader.log.ends[0] == len(reader.log.messages) < 90
        assert await read(cursor, 90) == list(range(1, 91))
        await cursor.close()


@pytest.mark.parametrize("partitions", [ALL, frozenset({1, 2})], ids=["all partitions", "some"])
async def test_no_position_exceeds_a_stored_message_that_its_consumer_lacks(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, partitions: frozenset[int]
) -> None:
    held = HeldMessages(monkeypatch)
    epoch = await make_stream(connection)
    async with share(connection, partitions) as shared:
        cursor = await shared.open(epoch, dict.fromkeys(partitions, 1), TYPES)
        await publish(connection, [("a.b", 1), ("a.b", 2)])
        assert sorted(await read(cursor, 2)) == [1, 2]
        held.is_holding = True
        await publish(connection, [("a.b", 1), ("a.b", 2), ("a.b", 1)])
        await wait_for_checks(shared, 4)
        positions = cursor.read_positions()
        assert positions[1] == 2
        assert positions[2] <= 3
        held.release()
        assert sorted(await read(cursor, 3)) == [3, 4, 5]
        await cursor.close()


async def test_a_wrong_end_is_logged_and_loses_no_message(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def miss_all(*_: object) -> None:
        return None

    held = HeldMessages(monkeypatch)
    epoch = await make_stream(connection)
    async with share(connection) as shared:
        cursors = [await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES) for _ in range(2)]
        await publish(connection, [("a.b", n % 16) for n in range(20)])
        for cursor in cursors:
            assert len(await read(cursor, 20)) == 20
        held.is_holding = True
        with monkeypatch.context() as patches:
            patches.setattr("runtime.jetstream.end_checks.read_next_sequence", miss_all)
            await publish(connection, [("a.b", n % 16) for n in range(40)])
            await until(lambda: min(cursors[0].read_positions().values()) == 60)
        with own_lines() as lines:
            held.release()
            for cursor in cursors:
                assert await read(cursor, 40) == list(range(21, 61))
        assert lines.of("Late message in the stream; reading again from the last messages")
        await publish(connection, [("a.b", 1)])
        for cursor in cursors:
            assert await read(cursor, 1) == [61]
            await cursor.close()


async def test_a_server_that_has_led_until_now_proves_no_end(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = JetStreamContext.get_msg

    async def get_from_old_store(js: JetStreamContext, name: str, **options: Any) -> Any:
        message = await get(js, name, **options)
        if (message.seq or 0) > 20:
            raise NotFoundError
        return message

    held = HeldMessages(monkeypatch)
    epoch = await make_stream(connection)
    shared = SharedReader(connection, lambda: ALL, limits=SMALL)
    cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
    await publish(connection, [("a.b", n % 16) for n in range(20)])
    assert len(await read(cursor, 20)) == 20
    held.is_holding = True
    await publish(connection, [("a.b", n % 16) for n in range(40)])
    with monkeypatch.context() as patches:
        patches.setattr(JetStreamContext, "get_msg", get_from_old_store)
        for _ in range(3):
            await shared._check()
    assert max(cursor.read_positions().values()) <= 20
    held.release()
    assert await read(cursor, 40) == list(range(21, 61))
    await cursor.close()


class TwoServers:
    """Answers of two servers of a stream with three replicas: a former leader finds no next message."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.former_answers = False
        self._get, self._read_identity = JetStreamContext.get_msg, read_stream_identity
        monkeypatch.setattr(
            JetStreamContext, "get_msg", lambda *args, **options: self._answer(*args, **options)
        )
        monkeypatch.setattr(end_checks, "read_stream_identity", self._read_replicated)
        monkeypatch.setattr(end_checks, "monotonic", lambda: self.now)

    async def _answer(self, js: JetStreamContext, name: str, **options: Any) -> Any:
        if self.former_answers and options.get("next"):
            raise NotFoundError
        return await self._get(js, name, **options)

    async def _read_replicated(self, js: JetStreamContext) -> StreamIdentity | None:
        identity = await self._read_identity(js)
        return replace(identity, replicas=3) if identity else None


async def test_a_former_leader_and_its_successor_together_prove_no_end(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, servers = HeldMessages(monkeypatch), TwoServers(monkeypatch)
    epoch = await make_stream(connection)
    shared = SharedReader(connection, lambda: ALL, limits=SMALL)
    cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
    await publish(connection, [("a.b", n % 16) for n in range(20)])
    assert len(await read(cursor, 20)) == 20
    held.is_holding = True
    await publish(connection, [("a.b", n % 16) for n in range(40)])
    servers.former_answers = True
    for _ in range(4):  # within the moment before the former leader learns of the other one
        await shared._check()
        servers.now += FORMER_LEADER_TIME / 5
    servers.former_answers, servers.now = False, FORMER_LEADER_TIME + 1
    for _ in range(4):
        await shared._check()
        servers.now += FORMER_LEADER_TIME
    assert max(cursor.read_positions().values()) <= 20
    held.release()
    assert await read(cursor, 40) == list(range(21, 61))
    await cursor.close()


async def test_an_end_that_two_checks_of_replicas_find_is_confirmed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = TwoServers(monkeypatch)
    epoch = await make_stream(connection)
    shared = SharedReader(connection, lambda: frozenset({1}), limits=SMALL)
    cursor = await shared.open(epoch, {1: 1}, TYPES)
    positions = []
    for _ in range(6):
        await publish(connection, [("a.b", 2)])
        await shared._check()
        servers.now += FORMER_LEADER_TIME / 2
        positions.append(cursor.read_positions()[1])
    assert positions == [0, 0, 1, 2, 3, 4]  # up to the end that a check has found so long before
    await cursor.close()


async def test_a_stream_that_was_replaced_during_a_check_proves_no_end(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def replace_stream(*_: object) -> None:
        await connection.js.delete_stream(streams.JETSTREAM)
        await make_stream(connection)

    held = HeldMessages(monkeypatch)
    epoch = await make_stream(connection)
    shared = SharedReader(connection, lambda: ALL, limits=SMALL)
    cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
    held.is_holding = True
    await publish(connection, [("a.b", 1)])
    monkeypatch.setattr("runtime.jetstream.end_checks.read_next_sequence", replace_stream)
    await shared._check()
    assert shared.latest_check is not None
    assert set(cursor.read_positions().values()) == {0}
    await cursor.close()


async def test_a_position_that_is_too_high_hides_no_message(connection: Connection) -> None:
    epoch = await make_stream(connection)
    async with share(connection) as shared:
        cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
        cursor.positions[1] = 99
        await publish(connection, [("a.b", 1)])
        assert await read(cursor, 1) == [1]
        await cursor.close()


async def test_the_end_of_a_stream_whose_last_messages_are_gone_is_confirmed(connection: Connection) -> None:
    epoch = await make_stream(connection)
    await publish(connection, [("a.b", 1)] * 5)
    await connection.js.delete_msg(streams.JETSTREAM, 5)
    async with share(connection) as shared:
        cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
        assert await read(cursor, 4) == [1, 2, 3, 4]
        await until(lambda: min(cursor.read_positions().values()) == 5)
        await connection.js.purge_stream(streams.JETSTREAM)
        await publish(connection, [("a.b", 1)])
        assert await read(cursor, 1) == [6]
        await cursor.close()
