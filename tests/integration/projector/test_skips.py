"""Events that operators have had skipped advance a view's version and change nothing else, in every build."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from contracts.envelope import RecordedEvent
from contracts.skips import INCARNATION, PAGE_SIZE, SkippedEvent, name_field
from operations.verify.model import Event
from projector import replayer, skips
from projector.retry_schedule import RetryPolicy
from runtime.process.settings import Settings
from tests.support.harness import parked_aggregates, projection_run
from tests.support.harness.fragile_accounts import (
    HOT,
    NEIGHBOURS,
    FragileAccounts,
    is_parked,
    list_payments,
    read_fields,
    read_version,
)
from tests.support.harness.projection_run import ALL_PARTITIONS, INCARNATION_ID, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import ACCOUNT_SPEC, day_counters
from tests.support.ledger.projections import ACCOUNT

POISON = 13
ONCE = RetryPolicy(attempts=1)


def make_unknown(event: RecordedEvent) -> RecordedEvent:
    return replace(event, type="ledger.v9.Mystery")


def make_undecodable(event: RecordedEvent) -> RecordedEvent:
    return replace(event, data=b"\xff\xff")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer, "REFRESH_INTERVAL", 0.05)


def run(
    redis_url: str, nats_url: str, accounts: FragileAccounts
) -> AbstractAsyncContextManager[projection_run.RunningProjector]:
    return projector(
        redis_url,
        nats_url,
        partitions=ALL_PARTITIONS,
        projection=accounts.projection,
        retries=ONCE,
        skips=True,
    )


async def skip(redis: Redis, publisher: EventPublisher, *events: RecordedEvent, copy: bool = True) -> None:
    """Skip events as the operations server does: the row, which the relay tells, and the copy."""
    for event in events:
        publisher.skips.append(SkippedEvent(len(publisher.skips) + 1, event.stream, event.version))
        if copy:
            await redis.hset(ACCOUNT.skips, name_field(event.stream, event.version), "")


async def assert_without(redis: Redis, history: Sequence[RecordedEvent], *skipped: int) -> None:
    """Assert that Redis has an account, its entries and its days without the events of these versions."""
    left = [event for event in history if event.version not in skipped]
    parsed = [Event(event, EVENTS.decode(event)) for event in left]
    fields = await read_fields(redis, history[0].stream.rpartition(".")[2])
    expected = ACCOUNT_SPEC.fold(parsed)
    if "version" in expected.DESCRIPTOR.fields_by_name:
        expected.version = history[-1].version
    assert ACCOUNT.message.FromString(fields["data"]) == expected
    assert int(fields["version"]) == history[-1].version
    key = ACCOUNT.history(history[0].stream.rpartition(".")[2])
    entries: Any = await redis.hkeys(key)
    assert {int(entry) for entry in entries} == {event.version for event in left}
    for counters, sums in day_counters([left]).items():
        stored: Any = await redis.hgetall(counters)
        assert {name.decode(): int(amount) for name, amount in stored.items()} == sums


async def has_version(redis: Redis, version: int, account: str = HOT) -> bool:
    return await read_version(redis, account) == version and not await is_parked(redis, account)


async def waits_at(redis: Redis, version: int) -> bool:
    return await read_version(redis) == version - 1 and await is_parked(redis)


def with_three_kinds() -> list[RecordedEvent]:
    """Return payments of which the handler raises at 3, 5 is of an unknown type and 7 cannot be decoded."""
    history = list_payments(HOT, 9, v3=POISON)
    history[4], history[6] = make_unknown(history[4]), make_undecodable(history[6])
    return history


async def test_each_kind_of_error_is_skipped_in_order_and_after_redis_was_wiped(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history, accounts = with_three_kinds(), FragileAccounts(POISON)
    async with run(redis_url, nats_url, accounts):
        await publisher.publish(*history)
        for version in (3, 5, 7):
            await until(lambda: waits_at(redis, version))  # noqa: B023 - awaited here
            await skip(redis, publisher, history[version - 1])
        await until(lambda: has_version(redis, 9))
    await assert_without(redis, history, 3, 5, 7)
    accounts.poison.clear()  # the event could be applied now, and is skipped all the same
    await redis.flushall()
    async with run(redis_url, nats_url, accounts):
        await until(lambda: has_version(redis, 9))
    await assert_without(redis, history, 3, 5, 7)


async def test_a_retry_by_an_operator_finds_the_skip_at_once(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skips.Skips, "refresh", no_refresh)
    history = list_payments(HOT, 5, v3=POISON)
    async with run(redis_url, nats_url, FragileAccounts(POISON)):
        await publisher.publish(*history)
        await until(lambda: waits_at(redis, 3))
        await skip(redis, publisher, history[2])
        await parked_aggregates.retry(Settings(redis_url=redis_url), ACCOUNT, [HOT])
        await until(lambda: has_version(redis, 5))
    await assert_without(redis, history, 3)


async def no_refresh(_: skips.Skips) -> set[Any]:
    return set()


async def test_a_skip_takes_effect_without_its_copy(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skips, "ASK_INTERVAL", 0.1)
    history = list_payments(HOT, 5, v3=POISON)
    async with run(redis_url, nats_url, FragileAccounts(POISON)):
        await publisher.publish(*history)
        await until(lambda: waits_at(redis, 3))
        await skip(redis, publisher, history[2], copy=False)
        await until(lambda: has_version(redis, 5))
    await assert_without(redis, history, 3)
    assert await redis.hexists(ACCOUNT.skips, name_field(history[2].stream, 3))


async def test_nothing_is_applied_before_the_skips_of_this_database_are_known(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    """The copy is of another incarnation, and so is the only reply."""
    await redis.hset(ACCOUNT.skips, INCARNATION, "other")
    publisher.incarnation = "other"
    history = list_payments(HOT, 3)
    await publisher.publish(*history)
    await skip(redis, publisher, history[1], copy=False)
    async with run(redis_url, nats_url, FragileAccounts()):
        await until(lambda: redis.exists(ACCOUNT.build))
        await asyncio.sleep(0.5)  # for views that must not be there
        assert await read_version(redis) == 0
        publisher.incarnation = INCARNATION_ID
        await until(lambda: has_version(redis, 3))
    await assert_without(redis, history, 2)


async def test_a_view_that_has_passed_the_event_is_folded_again(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history, other = list_payments(HOT, 5, v3=7), list_payments(NEIGHBOURS[0], 2)
    async with run(redis_url, nats_url, FragileAccounts()):
        await publisher.publish(*history, *other)
        await until(lambda: has_version(redis, 5))
        await until(lambda: has_version(redis, 2, NEIGHBOURS[0]))
        await skip(redis, publisher, history[2])

        async def is_folded_again() -> bool:
            fields = await read_fields(redis)
            account: Any = ACCOUNT.message.FromString(fields["data"])
            return bool(account.balance == 4 and "parked" not in fields)

        await until(is_folded_again)


async def test_a_skipped_first_event_leaves_an_empty_view(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history = list_payments(HOT, 2, v1=POISON)
    async with run(redis_url, nats_url, FragileAccounts(POISON)):
        await publisher.publish(history[0])
        await until(lambda: waits_at(redis, 1))
        await skip(redis, publisher, history[0])
        await until(lambda: has_version(redis, 1))
        assert not await redis.exists(ACCOUNT.history(HOT))
        await publisher.publish(history[1])
        await until(lambda: has_version(redis, 2))
    await assert_without(redis, history, 1)


async def test_more_skips_than_a_page_are_read(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher
) -> None:
    history = list_payments(HOT, 2)
    publisher.skips += [
        SkippedEvent(number, "ledger.account.x", number) for number in range(1, PAGE_SIZE + 1)
    ]
    await skip(redis, publisher, history[0], copy=False)
    await publisher.publish(*history)
    async with run(redis_url, nats_url, FragileAccounts()):
        await until(lambda: has_version(redis, 2))
    await assert_without(redis, history, 1)
    assert await redis.hlen(ACCOUNT.skips) == PAGE_SIZE + 2
