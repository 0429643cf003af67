"""What is applied while a projection is built or an aggregate is replayed changes no lag and adds no span."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts.envelope import RecordedEvent
from projector import metrics, observer
from runtime.telemetry import tracing
from tests.support.harness import projection_run
from tests.support.harness.fragile_accounts import FragileAccounts
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.histories import paid, recorded, written

TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OBSERVE = observer.create_observer(VIEW)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of the events that have a span. The measurements begin at zero."""
    ids: list[str] = []

    def record_span(_name: str, *, attributes: dict[str, Any], **_: object) -> None:
        ids.append(attributes["messaging.message.id"])

    monkeypatch.setattr(tracing, "record_span", record_span)
    for metric in (metrics.READ_MODEL_LAG, metrics.EVENTS_PROCESSED):
        metric.clear()
    yield ids


def traced(cheque_id: str, minutes: int = 0) -> RecordedEvent:
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    return recorded(1, written(cheque_id), at=at, traceparent=TRACED)


def count_lags() -> int:
    return sum(sum(each.buckets) for each in metrics.READ_MODEL_LAG.distributions.values())


def count_late() -> int:
    """Return the samples in the last bucket, +Inf."""
    return sum(each.buckets[-1] for each in metrics.READ_MODEL_LAG.distributions.values())


def count_processed() -> int:
    return sum(metrics.EVENTS_PROCESSED.sums.values())


async def has_no_parked(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


async def test_a_build_and_a_rebuild_change_no_lag(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, spans: list[str]
) -> None:
    old = [traced(f"old-{number}", minutes=60) for number in range(20)]
    await publisher.publish(*old)
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, observe=OBSERVE):
        await until(lambda: projection_run.is_ready(redis))
        await until(lambda: count_processed() == 20)
        assert (count_lags(), spans) == (0, [])
        await publisher.publish(traced("new-1"))
        await until(lambda: count_processed() == 21)
        assert (count_lags(), count_late(), spans) == (1, 0, ["ledger.cheque.new-1@1"])

        await redis.delete(VIEW.ready, VIEW.build)  # as `diptych projections rebuild` does
        await publisher.publish(traced("during-1"))  # the rebuild begins with the next write
        await until(lambda: projection_run.is_ready(redis))
        await until(lambda: count_processed() >= 21 + 22)
        assert (count_lags(), count_late(), len(spans)) == (1, 0, 1)
        await publisher.publish(traced("new-2"))
        await until(lambda: count_lags() == 2)
        assert (count_late(), spans[1:]) == (0, ["ledger.cheque.new-2@1"])


async def test_what_a_projector_catches_up_after_it_was_away_is_late(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, spans: list[str]
) -> None:
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, observe=OBSERVE):
        await until(lambda: projection_run.is_ready(redis))
    await publisher.publish(traced("missed", minutes=1))
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, observe=OBSERVE):
        await until(lambda: count_lags() == 1)
    assert (count_late(), spans) == (1, ["ledger.cheque.missed@1"])


async def test_a_replay_of_a_parked_aggregate_changes_no_lag(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, spans: list[str]
) -> None:
    fragile = FragileAccounts(13)
    view, late = fragile.projection.view, datetime.now(UTC) - timedelta(minutes=1)
    async with projector(
        redis_url,
        nats_url,
        projection=fragile.projection,
        partitions=ALL_PARTITIONS,
        observe=observer.create_observer(view),
    ):
        await until(lambda: redis.exists(view.ready))
        await publisher.publish(recorded(1, paid("a-1", 13), at=late, traceparent=TRACED))
        await until(lambda: any(not success for _, success in metrics.EVENTS_PROCESSED.sums))
        fragile.poison.clear()
        await until(lambda: any(success for _, success in metrics.EVENTS_PROCESSED.sums))
        assert (count_lags(), spans) == (0, [])
        await until(lambda: has_no_parked(redis, view.parked))
        await publisher.publish(recorded(2, paid("a-1", 1), traceparent=TRACED))
        await until(lambda: count_lags() == 1)
    assert (count_late(), spans) == (0, ["ledger.account.a-1@2"])
