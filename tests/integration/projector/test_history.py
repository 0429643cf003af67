"""The history of a view: one entry per event, written with the view."""

import random
from datetime import UTC
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from projector.retry_schedule import RetryPolicy
from tests.support.harness import projection_run
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher, Killed, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import (
    cheque_events,
    cheque_history,
    endorsed,
    random_cheque_events,
    recorded,
    written,
    written_v1,
)
from tests.support.ledger.projections import CHEQUES, HISTORIES
from tests.support.ledger.stubs import events as v1
from tests.support.ledger.stubs import types as views

VIEW = HISTORIES.view


async def read_entries(redis: Redis, cheque_id: str = "c-1") -> dict[int, Any]:
    entries: Any = await redis.hgetall(VIEW.history(cheque_id))
    return {int(version): views.ChequeHistoryEntry.FromString(entry) for version, entry in entries.items()}


async def read_version(redis: Redis, cheque_id: str = "c-1") -> int:
    return int(await redis.hget(VIEW.key(cheque_id), "version") or 0)


async def are_complete(redis: Redis, histories: list[list[RecordedEvent]]) -> bool:
    return all(
        [
            await read_version(redis, streams.aggregate_id(history[0].stream)) == len(history)
            for history in histories
        ]
    )


async def assert_history(redis: Redis, history: list[RecordedEvent]) -> None:
    """Assert that a history has exactly these events, as they were recorded."""
    cheque_id = streams.aggregate_id(history[0].stream)
    data: Any = await redis.hget(VIEW.key(cheque_id), "data")
    assert views.ChequeHistory.FromString(data) == cheque_history(history)
    entries = await read_entries(redis, cheque_id)
    assert set(entries) == set(range(1, len(history) + 1))
    for event in history:
        entry = entries[event.version]
        assert (entry.version, entry.event_type) == (event.version, event.type)
        assert entry.record_time.ToDatetime(UTC) == event.recorded_at
        assert (entry.event.TypeName(), entry.event.value) == (event.type, event.data)


async def test_an_entry_has_the_event_its_time_actor_and_command(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    metadata = {
        "actor": "shop",
        "command": "acme.ledger.v1.EndorseCheque",
        "causation_id": "5a1f3c8e-0000-4000-8000-000000000002",
        "correlation_id": "5a1f3c8e-0000-4000-8000-000000000003",
        "on_behalf_of": "ada",
    }
    history = [recorded(1, written("c-1"), actor="shop"), recorded(2, endorsed("c-1"), **metadata)]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await publisher.publish(*history)
        await until(lambda: are_complete(redis, [history]))
    await assert_history(redis, history)
    entry = (await read_entries(redis))[2]
    event = v1.ChequeEndorsed()
    assert entry.event.Unpack(event)
    assert event == endorsed("c-1")
    assert (entry.actor, entry.on_behalf_of) == ("shop", "ada")
    assert entry.command == "acme.ledger.v1.EndorseCheque"
    assert entry.request_id == metadata["causation_id"]
    assert entry.correlation_id == metadata["correlation_id"]
    assert (await read_entries(redis))[1].on_behalf_of == ""


async def test_both_versions_of_an_event_keep_their_recorded_form(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    old, new = [recorded(1, written_v1("c-1"))], [recorded(1, written("c-2"))]
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await publisher.publish(*old, *new)
        await until(lambda: are_complete(redis, [old, new]))
    await assert_history(redis, old)
    await assert_history(redis, new)
    assert (await read_entries(redis, "c-1"))[1].event_type == "acme.ledger.v1.ChequeWritten"
    assert (await read_entries(redis, "c-2"))[1].event_type == "acme.ledger.v2.ChequeWritten"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["write", "advance"])
async def test_the_histories_of_a_killed_projector_become_complete(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, step: str, when: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    histories = [random_cheque_events(random.Random(seed + n), f"c-{n}") for n in range(20)]
    await publisher.publish(*(event for history in histories for event in history))
    store = projection_run.dying_store(step, when)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES, store=store
    ) as dying:
        assert isinstance(await dying.wait_for_error(), Killed)
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES),
    ):
        await publisher.publish(*histories[0], *reversed(histories[1]))
        await until(lambda: are_complete(redis, histories))
    for history in histories:
        await assert_history(redis, history)


async def test_an_unknown_event_parks_every_projection_of_its_stream(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history, other, slow = cheque_events("c-1"), cheque_events("c-2"), RetryPolicy(first_pause=60.0)
    original = history[1]
    newer = RecordedEvent(
        original.stream, 2, "acme.ledger.v3.ChequeEndorsed", original.data, original.recorded_at, 2, {}
    )
    async with (
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES, retries=slow),
        projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=CHEQUES, retries=slow),
    ):
        await publisher.publish(history[0], newer, history[2], *other)
        await until(lambda: are_complete(redis, [other]))
        for view in (VIEW, CHEQUES.view):
            await until(lambda: redis.hexists(view.parked, "c-1"))  # noqa: B023 - awaited here
    await assert_history(redis, history[:1])
    await assert_history(redis, other)


async def test_a_rebuilt_history_has_no_earlier_entries(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history = cheque_events("c-1")
    await publisher.publish(*history)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, projection=HISTORIES):
        await until(lambda: exists(redis, VIEW.ready))
        await redis.hset(VIEW.history("c-1"), "9", b"no entry")
        await redis.hset(VIEW.history("ghost"), "1", b"no entry")
        await redis.delete(VIEW.build)
        await until(lambda: is_missing(redis, VIEW.history("ghost")))
        await until(lambda: are_complete(redis, [history]))
    await assert_history(redis, history)


async def exists(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def is_missing(redis: Redis, key: str) -> bool:
    return not await exists(redis, key)
