"""Projections that share a reading: one that fails and one that is slow do not hold up the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from projector.event_feed import JetStreamEventFeed
from projector.leases import RedisLeases
from projector.projection import Projection
from projector.redis_connection import connect as connect_redis
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy
from projector.runner import Runner
from runtime.jetstream import PublicationClock, SharedReader, connect
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness import projection_run
from tests.support.harness.fragile_accounts import (
    HOT,
    FragileAccounts,
    assert_accounts,
    is_complete,
    list_payments,
    read_version,
)
from tests.support.harness.keys import get_ring
from tests.support.harness.projection_run import ALL_PARTITIONS, EventPublisher
from tests.support.harness.waiting import until
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import cheque_events
from tests.support.ledger.projections import CHEQUES, HISTORY
from tests.support.ledger.stubs import events, events_v2

PAYMENTS, CHEQUE_COUNT = 300, 100
SLOW_EVENT = 0.02
"""Seconds of CPU."""


class SlowAccounts(FragileAccounts):
    """The handler of payments computes for SLOW_EVENT seconds."""

    def pay(self, account: Any, event: Any) -> None:
        end = perf_counter() + SLOW_EVENT
        while perf_counter() < end:
            pass
        super().pay(account, event)


def create_histories(*, fails: bool) -> Projection[Any]:
    """Return a projection of the histories of cheques; if it fails, then at every event."""
    projection = Projection[Any](HISTORY, events=EVENTS)

    def handle(history: Any, event: Any) -> None:
        if fails:
            raise RuntimeError("fails at every event")
        history.cheque_id = event.cheque_id

    for event in (events_v2.ChequeWritten, events.ChequeEndorsed, events.ChequeCashed, events.ChequeVoided):
        projection.on(event)(handle)
    return projection


@asynccontextmanager
async def sharing(
    redis_url: str, nats_url: str, projections: Sequence[Projection[Any]], code: str
) -> AsyncIterator[SharedReader]:
    """Run projections with one reading of the stream."""
    async with (
        connect_redis(redis_url) as redis,
        await connect(nats_url, "projector", get_ring) as connection,
    ):
        await connection.wait_until_connected()
        leases = RedisLeases(redis, "ledger")
        leases._partitions = frozenset(ALL_PARTITIONS)
        publication = PublicationClock(connection)
        shared = SharedReader(connection, lambda: leases.partitions, publication)
        retries, stopping = RetryPolicy(first_pause=0.05, attempts=2, code=code), asyncio.Event()
        runners = [
            Runner(
                projection,
                RedisStore(redis, projection.view),
                JetStreamEventFeed(connection, shared, projection.view.source_streams),
                leases,
                retries,
            )
            for projection in projections
        ]
        works = [publication.run(), shared.run(), *(runner.run(stopping) for runner in runners)]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield shared
        finally:
            await cancel_and_wait(*tasks)


@pytest.mark.long
async def test_a_failing_and_a_slow_projection_do_not_hold_up_the_others(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    hot, slow = list_payments(HOT, PAYMENTS), SlowAccounts().projection
    histories = [cheque_events(f"c-{n}", f"a-{n % 7}", n % 60) for n in range(CHEQUE_COUNT)]

    async def are_parked(count: int) -> bool:
        return await redis.hlen(HISTORY.parked) == count

    failing = [CHEQUES, create_histories(fails=True), slow]
    async with sharing(redis_url, nats_url, failing, "failing code") as shared:
        await publisher.publish(*hot, *(event for history in histories for event in history))
        await until(lambda: projection_run.has_applied(redis, histories))
        assert await read_version(redis) < PAYMENTS  # the others were not held up until it was done
        await until(lambda: are_parked(CHEQUE_COUNT))
        assert len(shared._readers) == 1
        await until(lambda: is_complete(redis, hot), 60)
    await projection_run.assert_views(redis, histories)
    await assert_accounts(redis, hot)
    mended = [CHEQUES, create_histories(fails=False), slow]
    async with sharing(redis_url, nats_url, mended, "mended code"):
        await until(lambda: are_parked(0))
        for history in histories:
            stored = await redis.hget(HISTORY.key(streams.aggregate_id(history[0].stream)), "version")
            assert int(stored or 0) == len(history)
    await projection_run.assert_views(redis, histories)
