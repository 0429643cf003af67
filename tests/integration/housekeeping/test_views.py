"""The views of aggregates that ended long ago, and old history entries, are archived."""

import os
import random
import sys
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from diptych.banking.v1 import events_pb2 as events
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from contracts.envelope import RecordedEvent
from operations.housekeeping import histories
from operations.housekeeping.histories import trim_projection
from projector.projections.banking.account_ledger import LEDGERS
from projector.projections.banking.hold import HOLDS
from projector.redis_archive import RedisArchive
from tests.integration.housekeeping.conftest import House
from tests.support.harness.stored_projection import StoredProjection
from tests.support.harness.waiting import until
from tests.support.models.accounts import Account

MONTH = timedelta(days=30)
MANY = 5_000


def hold_events(hold_id: str, age: timedelta, *, ended: bool = True) -> list[RecordedEvent]:
    """Return the events of a hold that was placed, and released, this long ago."""
    at, time = datetime.now(UTC) - age, Timestamp()
    time.FromDatetime(at)
    placed = events.HoldPlaced(hold_id=hold_id, account_id="a-1", placed_at=time)
    messages: list[Any] = [placed, events.HoldReleased(hold_id=hold_id, released_at=time)][: 1 + ended]
    return [
        RecordedEvent(
            f"banking.hold.{hold_id}",
            version,
            each.DESCRIPTOR.full_name,
            each.SerializeToString(),
            at,
            version,
            {},
        )
        for version, each in enumerate(messages, 1)
    ]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


@pytest.fixture
async def holds(redis: Redis) -> StoredProjection:
    holds = StoredProjection(redis, HOLDS)
    await holds.begin_build()
    return holds


@pytest.fixture
async def ledgers(redis: Redis) -> StoredProjection:
    ledgers = StoredProjection(redis, LEDGERS)
    await ledgers.begin_build()
    return ledgers


async def keep(house: House, redis_url: str, **options: Any) -> int:
    return await house.keep(redis_url=redis_url, contexts="banking", **options)


async def test_views_that_ended_before_the_retention_are_archived(
    house: House, redis_url: str, holds: StoredProjection
) -> None:
    await holds.write(
        hold_events("old", 2 * MONTH),
        hold_events("new", MONTH / 2),
        hold_events("open", 2 * MONTH, ended=False),
    )
    assert await keep(house, redis_url) == 0
    assert house.line_of("views").endswith("0 views archived, everything is kept")
    await keep(house, redis_url, keep_views=MONTH, dry_run=True)
    assert "1 views to archive" in house.line_of("views")
    assert b"data" in await holds.read("old")
    await keep(house, redis_url, keep_views=MONTH)
    assert "1 views archived" in house.line_of("views")
    assert "1 archived in all" in house.line_of("views")
    fields = {b"version", b"revision", b"archived", b"entries", b"owner"}
    assert set(await holds.read("old")) == fields
    for each in ("new", "open"):
        assert b"data" in await holds.read(each)
    members: Any = await holds.redis.zrange(holds.view.index("ended"), 0, -1)
    assert [member.partition(b":")[2] for member in members] == [b"new"]


async def test_a_projection_that_is_built_is_left_alone(
    house: House, redis_url: str, holds: StoredProjection
) -> None:
    await holds.write(hold_events("old", 2 * MONTH))
    await holds.redis.delete(holds.view.ready)
    await keep(house, redis_url, keep_views=MONTH)
    assert "0 views archived" in house.line_of("views")
    assert "banking.hold" in house.line_of("views")
    assert b"data" in await holds.read("old")


@pytest.mark.long
async def test_a_killed_round_leaves_each_view_whole_or_archived(
    house: House, redis_url: str, holds: StoredProjection
) -> None:
    ids = [f"h-{number}" for number in range(MANY)]
    for at in range(0, MANY, 500):
        await holds.write(*(hold_events(each, 2 * MONTH) for each in ids[at : at + 500]))
    variables = {
        "DIPTYCH_DATABASE_URL": house.database_url,
        "DIPTYCH_REDIS_URL": redis_url,
        "DIPTYCH_CONTEXTS": "banking",
        "DIPTYCH_KEEP_VIEWS": "30d",
    }
    command = (sys.executable, "-m", "operations.cli", "housekeeping")
    process = await create_subprocess_exec(*command, env={**os.environ, **variables}, stdout=DEVNULL)

    async def has_begun() -> bool:
        return await holds.store.count_archived() > 0

    await until(has_begun)
    process.kill()
    await process.wait()
    count = await holds.store.count_archived()
    assert 0 < count < MANY
    views = [await holds.read(each) for each in ids]
    assert sum(b"archived" in view for view in views) == count
    assert all((b"archived" in view) != (b"data" in view) for view in views)
    await house.connection.execute("UPDATE housekeeping SET leader = NULL")
    await keep(house, redis_url, keep_views=MONTH)
    assert await holds.store.count_archived() == MANY
    assert await holds.redis.zcard(holds.view.index("ended")) == 0


def make_account(account_id: str, *ages: timedelta) -> Account:
    """Return an account with a payment of each age, the oldest first."""
    now = datetime.now(UTC)
    account = Account(account_id, at=now - ages[0])
    for age in ages:
        account.record(events.MoneyDeposited, 100, after=now - age - account.at)
    return account


async def test_old_entries_go_and_the_last_of_them_stays(
    house: House, redis_url: str, ledgers: StoredProjection
) -> None:
    mixed = make_account("a-1", 3 * MONTH, 3 * MONTH, 2 * MONTH, MONTH / 2, timedelta(0))
    old, new = make_account("a-2", 3 * MONTH, 2 * MONTH), make_account("a-3", MONTH / 2, timedelta(0))
    await ledgers.write(mixed.events, old.events, new.events)
    await keep(house, redis_url, keep_history=MONTH, dry_run=True)
    assert "5 entries to remove" in house.line_of("history")
    await keep(house, redis_url, keep_history=MONTH)
    assert "5 entries removed" in house.line_of("history")
    assert await ledgers.read_versions("a-1") == [4, 5, 6]
    assert await ledgers.read_versions("a-2") == [3]
    assert await ledgers.read_versions("a-3") == [1, 2, 3]
    assert (await ledgers.read("a-1"))[b"history_from"] == b"4"
    assert b"history_from" not in await ledgers.read("a-3")
    await keep(house, redis_url, keep_history=MONTH)
    assert "0 entries removed" in house.line_of("history")


async def test_random_histories_keep_what_is_not_old(ledgers: StoredProjection) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    accounts = []
    for number in range(60):
        ages = [MONTH * chance.random() for _ in range(chance.randrange(1, 40))]
        accounts.append(make_account(f"a-{number}", *sorted(ages, reverse=True)))
    await ledgers.write(*(account.events for account in accounts))
    for age in sorted((MONTH * chance.random() for _ in range(3)), reverse=True):
        before = datetime.now(UTC) - age
        await trim_projection(LEDGERS, ledgers.store, int(before.timestamp() * 10**9), False)
        for account in accounts:
            kept = await ledgers.read_versions(account.id)
            newest_old = max((e.version for e in account.events if e.recorded_at < before), default=1)
            assert kept[-1] == len(account.events)
            assert kept == list(range(kept[0], kept[-1] + 1))
            assert kept[0] <= newest_old, "the entry from which the next one continues"
            assert kept[0] == int((await ledgers.read(account.id)).get(b"history_from", b"1"))


async def test_a_history_that_changed_meanwhile_is_left_to_the_next_round(
    ledgers: StoredProjection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "SLICE", 2)
    account = make_account("a-1", *(3 * MONTH for _ in range(8)))
    await ledgers.write(account.events)
    trim, calls = RedisArchive.trim, 0

    async def trim_and_interfere(self: RedisArchive, *arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:  # another round removes the same entries first
            assert await trim(self, *arguments)
        return await trim(self, *arguments)

    monkeypatch.setattr(RedisArchive, "trim", trim_and_interfere)
    before = int(datetime.now(UTC).timestamp()) * 10**9
    assert await trim_projection(LEDGERS, ledgers.store, before, False) == 2
    assert await ledgers.read_versions("a-1") == [5, 6, 7, 8, 9]
    assert await trim_projection(LEDGERS, ledgers.store, before, False) == 4
    assert await ledgers.read_versions("a-1") == [9]


async def test_damaged_histories_are_left_alone_and_the_others_go_on(
    house: House, redis_url: str, ledgers: StoredProjection
) -> None:
    accounts = [make_account(f"a-{number}", *(3 * MONTH for _ in range(4))) for number in range(4)]
    await ledgers.write(*(account.events for account in accounts))
    await ledgers.redis.hset(ledgers.view.history("a-0"), "3", b"\xff")
    await ledgers.redis.hset(ledgers.view.key("a-1"), "history_from", "x")
    await ledgers.redis.set(ledgers.view.key("a-9"), "no hash")
    await ledgers.redis.delete(ledgers.view.history("a-2"))
    await ledgers.redis.set(ledgers.view.history("a-2"), "no hash")
    await keep(house, redis_url, keep_history=MONTH)
    assert "4 entries removed" in house.line_of("history")
    assert await ledgers.read_versions("a-3") == [5]


async def test_a_damaged_index_stops_only_its_projection(
    house: House, redis_url: str, holds: StoredProjection
) -> None:
    await holds.redis.set(holds.view.index("ended"), "no sorted set")
    assert await keep(house, redis_url, keep_views=MONTH) == 0
    assert "not all of banking.hold: WRONGTYPE" in house.line_of("views")
