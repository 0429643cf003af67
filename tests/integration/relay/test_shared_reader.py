"""One reading of the stream for several cursors, against a real server: no message is missed or repeated."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from contracts import streams
from runtime.jetstream import (
    Connection,
    Cursor,
    EventMessage,
    Limits,
    ReaderLost,
    SharedReader,
)
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.keys import sign_events
from tests.support.harness.log_lines import own_lines
from tests.support.harness.shared_reading import (
    ALL,
    TYPES,
    count_consumers,
    make_stream,
    publish,
    read,
    share,
    until_closed,
    wait_for_checks,
)
from tests.support.harness.waiting import until
from tests.support.ledger.histories import cheque_events


class Owner:
    """Reads by a cursor, at a speed of its own; opens another from its checkpoints when it is lost."""

    def __init__(
        self, shared: SharedReader, epoch: str, types: Sequence[str], partitions: Iterable[int]
    ) -> None:
        self.shared = shared
        self.epoch = epoch
        self.types = types
        self.checkpoints = dict.fromkeys(partitions, 0)
        self.returned: list[tuple[str, int, int]] = []
        self.proofs: list[tuple[int, dict[int, int]]] = []
        """Numbers of returned messages, and the positions that the cursor claimed then."""
        self.losses = 0

    async def run(self, chance: random.Random) -> None:
        while True:
            try:
                cursor = await self._open()
                try:
                    for _ in range(chance.randrange(1, 300)):
                        self._take(await cursor.read_batch(chance.randrange(1, 30), 0.05))
                        self._take_positions(cursor)
                        await asyncio.sleep(chance.choice([0, 0, 0, 0, 0.001, 0.02]))
                finally:
                    await cursor.close()
            except ReaderLost:
                self.losses += 1

    async def _open(self) -> Cursor:
        starts = {partition: sequence + 1 for partition, sequence in self.checkpoints.items()}
        return await self.shared.open(self.epoch, starts, self.types)

    def _take(self, messages: Sequence[EventMessage]) -> None:
        for message in messages:
            self.returned.append((message.stream_type, message.partition, message.sequence))
            self.checkpoints[message.partition] = message.sequence

    def _take_positions(self, cursor: Cursor) -> None:
        positions = dict(cursor.read_positions())
        self.proofs.append((len(self.returned), positions))
        self.checkpoints.update(positions)

    def list_expected(self, keys: Sequence[tuple[str, int]]) -> list[tuple[str, int, int]]:
        return [
            (stream_type, partition, sequence)
            for sequence, (stream_type, partition) in enumerate(keys, 1)
            if stream_type in self.types and partition in self.checkpoints
        ]

    def assert_complete(self, keys: Sequence[tuple[str, int]]) -> None:
        """Assert that each message was returned once, each partition's in order, and that all proofs hold."""
        expected = self.list_expected(keys)
        assert sorted(self.returned, key=lambda each: each[2]) == expected
        for partition in self.checkpoints:
            sequences = [sequence for _, at, sequence in self.returned if at == partition]
            assert sequences == sorted(sequences)
        for count, positions in self.proofs:
            claimed = {each for each in expected if each[2] <= positions[each[1]]}
            assert claimed <= set(self.returned[:count])


@pytest.mark.parametrize("partitions", [ALL, frozenset({1, 5, 6})], ids=["all partitions", "some"])
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed else ()) for seed in range(8)]
)
async def test_cursors_that_join_and_leave_at_any_moment_miss_and_repeat_nothing(
    connection: Connection, seed: int, partitions: frozenset[int]
) -> None:
    chance = random.Random(seed)
    epoch = await make_stream(connection)
    keys: list[tuple[str, int]] = []

    async def publish_some(count: int) -> None:
        some = [(chance.choice(TYPES), chance.choice([0, 1, 5, 6, 6, 6])) for _ in range(count)]
        keys.extend(some)
        await publish(connection, some)

    await publish_some(chance.choice([0, 30, 200]))
    async with share(connection, partitions) as shared:
        owners = [
            Owner(shared, epoch, chance.sample(TYPES, chance.randrange(1, 4)), owned)
            for owned in (partitions, partitions, partitions, {6})
        ]
        tasks = [
            asyncio.create_task(owner.run(random.Random(f"{seed} {number}")))
            for number, owner in enumerate(owners)
        ]
        for _ in range(20):
            await publish_some(chance.choice([1, 1, 5, 40, 100]))
            await asyncio.sleep(chance.choice([0, 0.01, 0.05]))
            if chance.random() < 0.1:
                for consumer in await connection.js.consumers_info(streams.JETSTREAM):
                    with suppress(NotFoundError):  # its reading has ended meanwhile
                        await connection.js.delete_consumer(streams.JETSTREAM, consumer.name)

        async def have_ended() -> bool:
            await asyncio.sleep(0)
            for task in tasks:
                if task.done():
                    task.result()
            return all(len(owner.returned) >= len(owner.list_expected(keys)) for owner in owners)

        await until(have_ended, 30)
        await until(lambda: all(min(owner.checkpoints.values()) >= len(keys) for owner in owners))
        await cancel_and_wait(*tasks)
    for owner in owners:
        owner.assert_complete(keys)
    await until_closed(connection)


async def test_cursors_at_different_checkpoints_share_one_consumer(connection: Connection) -> None:
    epoch = await make_stream(connection)
    await publish(connection, [(TYPES[n % 3], n % 16) for n in range(90)])
    async with share(connection, limits=Limits()) as shared:
        starts = [1, 91, 40, 10, 85]
        cursors = await asyncio.gather(
            *(shared.open(epoch, dict.fromkeys(ALL, start), TYPES) for start in starts)
        )
        assert await count_consumers(connection) == 1
        for cursor, start in zip(cursors, starts, strict=True):
            assert await read(cursor, 91 - start) == list(range(start, 91))
        await publish(connection, [("a.b", 3)])
        for cursor in cursors:
            assert await read(cursor, 1) == [91]
        for cursor in cursors:
            await cursor.close()
    await until_closed(connection)


async def test_a_reading_that_is_closed_before_its_first_step_leaves_no_consumer(
    connection: Connection,
) -> None:
    epoch = await make_stream(connection)
    async with share(connection) as shared:
        await (await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)).close()
        assert await count_consumers(connection) == 0


async def test_a_message_is_decoded_once_for_all_cursors(connection: Connection) -> None:
    epoch = await make_stream(connection)
    recorded_event = cheque_events("c-1")[0]
    (message,) = sign_events(epoch, [recorded_event], after=0)
    await connection.js.publish(message.subject, message.data, headers=message.headers)
    stream_type = streams.stream_type(recorded_event.stream)
    async with share(connection) as shared:
        cursors = [await shared.open(epoch, dict.fromkeys(ALL, 1), [stream_type]) for _ in range(2)]
        (first,), (second,) = [await cursor.read_batch(5, 1) for cursor in cursors]
        assert first.event == recorded_event
        assert first.event is second.event
        for cursor in cursors:
            await cursor.close()


async def test_a_slow_cursor_leaves_and_joins_again(connection: Connection) -> None:
    epoch = await make_stream(connection)
    async with share(connection) as shared:
        fast, slow = [await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES) for _ in range(2)]
        main = shared.find_main()
        for n in range(10):
            await publish(connection, [(TYPES[n % 3], n)] * 30)
            assert await read(fast, 30) == list(range(30 * n + 1, 30 * n + 31))
        assert main is not None
        assert main.log.first > 0
        assert not slow.reads_apart()
        assert await read(slow, 1) != []
        assert slow.reads_apart()
        assert not fast.reads_apart()
        assert await count_consumers(connection) == 2
        await read(slow, 300 - main.log.limits.messages_ahead - slow.next)
        assert slow.positions[9] == 300
        await until(lambda: shared.is_near_end(300))
        await publish(connection, [("a.b", 0)])
        assert (await read(slow, 1), await read(fast, 1)) == ([301], [301])
        assert await count_consumers(connection) == 1
        assert main.members == {fast, slow}
        assert not slow.reads_apart()
        for cursor in (fast, slow):
            await cursor.close()


async def test_a_far_cursor_reads_only_its_own_types_until_it_has_caught_up(
    connection: Connection,
) -> None:
    epoch = await make_stream(connection)
    await publish(connection, [("a.b", 1), *[("d.e", n % 16) for n in range(200)], ("a.b", 2)])
    async with share(connection) as shared:
        far = await shared.open(epoch, dict.fromkeys(ALL, 1), ["a.b"])
        (reader,) = shared._readers
        assert reader.stream_types == frozenset({"a.b"})
        assert await read(far, 2) == [1, 202]
        # Behind the end of its reading it opens the main one, which the next cursor shares.
        await until(lambda: shared.is_near_end(202))
        assert await far.read_batch(1, 0) == []
        await publish(connection, [("d.e", 1), ("a.b", 3)])
        assert await read(far, 1) == [204]
        main = shared.find_main()
        assert main is not None
        other = await shared.open(epoch, dict.fromkeys(ALL, 203), ["d.e"])
        assert await read(other, 1) == [203]
        assert main.members == {far, other}
        for cursor in (far, other):
            await cursor.close()


async def test_messages_that_are_no_events_are_passed_over(connection: Connection) -> None:
    epoch = await make_stream(connection)
    for subject in ("1", "1.a.b", "x.a.b.c", "99.a.b.c", "01.a.b.c", "1.a.b.c.d", "1.a.b.c"):
        await connection.js.publish(f"diptych.events.{subject}", b"")
    async with share(connection) as shared:
        cursor = await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES)
        (message,) = await cursor.read_batch(10, 1)
        assert (message.sequence, message.event) == (7, None)  # of the right form, without headers
        assert set(cursor.read_positions().values()) == {7}
        await cursor.close()


async def test_a_cursor_of_another_epoch_or_without_a_stream_is_not_opened(connection: Connection) -> None:
    async with share(connection) as shared:
        with pytest.raises(ReaderLost):
            await shared.open("another", dict.fromkeys(ALL, 1), TYPES)
        await make_stream(connection)
        with pytest.raises(ReaderLost):
            await shared.open("another", dict.fromkeys(ALL, 1), TYPES)


async def test_a_recreated_stream_ends_all_cursors_and_new_ones_read_it(connection: Connection) -> None:
    epoch = await make_stream(connection)
    async with share(connection) as shared:
        cursors = [await shared.open(epoch, dict.fromkeys(ALL, 1), TYPES) for _ in range(3)]
        await connection.js.delete_stream(streams.JETSTREAM)
        other_epoch = await make_stream(connection)
        await publish(connection, [("a.b", 1)])
        for cursor in cursors:
            async with asyncio.timeout(20):
                with pytest.raises(ReaderLost):
                    while not await cursor.read_batch(10, 0.1):
                        pass
            await cursor.close()
        cursor = await shared.open(other_epoch, dict.fromkeys(ALL, 1), TYPES)
        assert await read(cursor, 1) == [1]
        await cursor.close()


async def test_cursors_of_fewer_partitions_share_a_new_main_reading(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await make_stream(connection)
    await publish(connection, [("a.b", n % 16) for n in range(16)])
    leased = set(ALL)
    async with share(connection, leased) as shared:
        old = [await shared.open(epoch, dict.fromkeys(ALL, 1), ["a.b"]) for _ in range(3)]
        for cursor in old[:2]:
            await read(cursor, 16)
        leased -= set(range(8, 16))
        for cursor in old[:2]:  # the third is slow: it still has the old partitions
            await cursor.close()
        (reader,) = shared._readers
        await until(lambda: shared.is_near_end(0))
        assert await old[2].read_batch(0, 0) == []
        assert (shared.find_main(), old[2]._reader) == (
            None,
            reader,
        )  # nothing better until there is a main one
        new = [await shared.open(epoch, dict.fromkeys(leased, 17), ["a.b"]) for _ in range(2)]
        main = shared.find_main()
        assert main is not None
        assert main.members == set(new)
        entries = 0
        enter = SharedReader.enter

        async def count_entries(*args: Any) -> None:
            nonlocal entries
            entries += 1
            await enter(*args)

        await publish(connection, [("a.b", n % 16) for n in range(32)])
        for cursor in new:
            assert sorted(await read(cursor, 16)) == [*range(17, 25), *range(33, 41)]
        assert sorted(await read(old[2], 48)) == list(range(1, 49))
        monkeypatch.setattr(SharedReader, "enter", count_entries)
        for _ in range(5):
            for cursor in (*new, old[2]):
                assert await cursor.read_batch(10, 0) == []
        assert entries == 0
        for cursor in (*new, old[2]):
            await cursor.close()
    await until_closed(connection)


async def test_an_error_of_a_check_is_logged_and_checks_continue(connection: Connection) -> None:
    epoch = await make_stream(connection)
    async with share(connection, {1}) as shared:
        cursor = await shared.open(epoch, {1: 1}, ["a.b"])
        await wait_for_checks(shared, 1)
        info = await connection.js.stream_info(streams.JETSTREAM)
        metadata = info.config.metadata or {}
        info.config.metadata = {**metadata, "diptych-removed-to": "x"}
        with own_lines() as lines:
            await connection.js.update_stream(info.config)
            shared._check_due.set()
            await until(lambda: bool(lines.of("Check of the stream failed")))
        info.config.metadata = metadata
        await connection.js.update_stream(info.config)
        await publish(connection, [("a.c", 1)])
        await until(lambda: cursor.read_positions() == {1: 1})
        await cursor.close()


async def test_many_consumers_together_do_not_exceed_the_log(connection: Connection) -> None:
    epoch = await make_stream(connection)
    some = sorted(ALL)[:15]
    async with share(connection, some) as shared:
        cursor = await shared.open(epoch, dict.fromkeys(some, 1), ["a.b"])
        (reader,) = shared._readers
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(reader, "_must_pause", lambda: True)
            await publish(connection, [("a.b", n % 15) for n in range(300)])
            await until(lambda: all(len(each._buffer) == 20 for each in reader._readers))
        reader._arrived.set()
        await until(lambda: reader._pauses and bool(reader.log.messages))
        assert reader.log.first == 0
        assert sorted(await read(cursor, 300)) == list(range(1, 301))
        assert cursor._reader is reader
        await cursor.close()
