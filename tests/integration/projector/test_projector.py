"""Projectors in this process: views, indexes, duplicates, reordering, gaps and foreign messages."""

import random

from redis.asyncio import Redis

from contracts import streams
from projector.records import Update
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger import histories as expect
from tests.support.ledger.histories import cheque_events, endorsed, recorded, voided, written
from tests.support.ledger.stubs import types as views


async def test_a_view_follows_its_events(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history = cheque_events("c-1")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        for n in range(1, 4):
            await publisher.publish(history[n - 1])
            await until(lambda: projection_run.is_complete(redis, [history[:n]]))  # noqa: B023 - awaited here
            await projection_run.assert_views(redis, [history[:n]])
    fields = await projection_run.read_view(redis, "c-1")
    assert fields["state"] == b"STATE_VOIDED"
    assert fields["amount"] == b"12.34 EUR"
    assert fields["write_time"] == b"2026-01-02T03:00:05+00:00"


async def test_a_backlog_of_many_cheques_matches_an_independent_fold(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    rng = random.Random(7)
    histories = [cheque_events(f"c-{n}", f"a-{n % 5}", n % 60)[: rng.randint(1, 3)] for n in range(700)]
    queues = [list(history) for history in histories]
    interleaved = []
    while queues:
        queue = rng.choice(queues)
        interleaved.append(queue.pop(0))
        if not queue:
            queues.remove(queue)
    await publisher.publish(*interleaved)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_complete(redis, histories))
    await projection_run.assert_views(redis, histories)


async def test_duplicates_change_nothing(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    writes: list[Update] = []

    def list_applied_ids() -> list[str]:
        return [event.id for update in writes for event in update.applied_events]

    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, observe=writes.extend):
        await publisher.publish(*one, one[0], one[2], one[1])
        await until(lambda: projection_run.has_applied(redis, [one]))
        before = await projection_run.read_view(redis, "c-1")
        await publisher.publish(*one, *two)
        await until(lambda: projection_run.has_applied(redis, [two]))
        await until(lambda: two[-1].id in list_applied_ids())  # observed after the write
    assert await projection_run.read_view(redis, "c-1") == before
    assert list_applied_ids() == [event.id for event in (*one, *two)]
    await projection_run.assert_views(redis, [one, two])


async def test_events_out_of_order_within_a_batch_are_applied_in_order(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one = cheque_events("c-1")
    await publisher.publish(one[2], one[0], one[1])
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_complete(redis, [one]))
    await projection_run.assert_views(redis, [one])


async def test_an_event_that_overtook_an_earlier_one_waits_for_it(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(one[0], one[2], *two)
        await until(lambda: projection_run.has_applied(redis, [two]))
        async with projection_run.publisher(nats_url) as second:
            second.epoch = publisher.epoch
            await second.publish(one[1])
        await until(lambda: projection_run.is_complete(redis, [one]))
        await until(lambda: nothing_is_parked(redis))
    await projection_run.assert_views(redis, [one, two])


async def test_a_gap_is_filled_from_the_aggregates_own_subject(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*one[:2], *two[:1])
        await until(lambda: projection_run.has_applied(redis, [one[:2], two[:1]]))
    await redis.delete("view:ledger.cheque:2:{c-1}")  # by mistake: its checkpoint is past its events
    writes: list[Update] = []
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, observe=writes.extend):
        await publisher.publish(one[2], two[1])
        await until(lambda: projection_run.has_applied(redis, [one, two[:2]]))
        await until(lambda: is_unlisted(redis))
    assert {each.after.parked.attempts for each in writes if each.after.parked} == {0}, "it is no failure"
    fields = await projection_run.read_view(redis, "c-1")
    assert views.Cheque.FromString(fields["data"]) == expect.cheque(one)


async def test_events_of_other_stream_types_are_ignored(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one, two = cheque_events("c-1"), cheque_events("c-2")
    await publisher.publish(one[0])
    await publisher.connection.js.publish("diptych.events.3.ledger.other.x-1", b"foreign")
    await publisher.connection.js.publish("diptych.events.3.other.item.x-1", b"foreign")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(*two)
        await until(lambda: projection_run.is_complete(redis, [one[:1], two]))
        await until(lambda: projection_run.is_ready(redis))
    await projection_run.assert_views(redis, [one[:1], two])


async def test_a_message_that_no_relay_published_is_ignored(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    one = cheque_events("c-1")
    await publisher.publish(one[0])
    await publisher.connection.js.publish(streams.subject("ledger.cheque.c-1"), b"no headers")
    await publisher.publish(one[1])
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await until(lambda: projection_run.is_complete(redis, [one[:2]]))
    await projection_run.assert_views(redis, [one[:2]])


async def test_index_entries_follow_the_state_and_no_old_one_remains(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    first = [recorded(1, written("c-1")), recorded(2, voided("c-1"))]
    second = [recorded(1, written("c-2", minute=1)), recorded(2, endorsed("c-2"))]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS):
        await publisher.publish(first[0], second[0])
        await until(lambda: projection_run.has_applied(redis, [first[:1], second[:1]]))
        await publisher.publish(first[1], second[1])
        await until(lambda: projection_run.has_applied(redis, [first, second]))
    indexes = await projection_run.read_indexes(redis)
    assert sorted(indexes) == [
        "index:ledger.cheque:2:{account/a-1}",
        "index:ledger.cheque:2:{account_state/a-1/STATE_ENDORSED}",
        "index:ledger.cheque:2:{account_state/a-1/STATE_VOIDED}",
        "index:ledger.cheque:2:{all}",
        "index:ledger.cheque:2:{state/STATE_ENDORSED}",
        "index:ledger.cheque:2:{state/STATE_VOIDED}",
    ]
    oldest_first = await projection_run.read_index(redis, "index:ledger.cheque:2:{account/a-1}")
    assert [member.partition(":")[2] for member in oldest_first] == ["c-1", "c-2"]


async def nothing_is_parked(redis: Redis) -> bool:
    return not await redis.exists("parked:ledger.cheque:2")


async def is_unlisted(redis: Redis) -> bool:
    return not await redis.exists(projection_run.VIEW.parked)
