"""Archived views and histories are no drift; tombstones that are wrong, are."""

from typing import Any

import pytest

from operations.housekeeping.histories import trim_projection
from operations.housekeeping.views import archive_projection
from projector.projection import Projection
from projector.redis_archive import RedisArchive
from tests.support.harness.verified_system import ACCOUNT, CHEQUE, HISTORY, System
from tests.support.ledger.projections import ACCOUNTS, CHEQUES, HISTORIES

NOW = 2**62


async def open_archive(system: System, projection: Projection[Any]) -> RedisArchive:
    store = RedisArchive(system.redis, projection.view)
    assert await store.read_build() is not None
    return store


@pytest.fixture
async def archived(system: System) -> System:
    """The system with all ended cheques archived, c-1 to c-3, and their histories."""
    for projection in (CHEQUES, HISTORIES):
        assert await archive_projection(projection, await open_archive(system, projection), NOW, False) == 3
    return system


async def trim(system: System, projection: Projection[Any]) -> int:
    return await trim_projection(projection, await open_archive(system, projection), NOW, False)


async def test_archived_views_are_counted(archived: System) -> None:
    report = await archived.verify()
    assert report.clean, report.to_text()
    assert (report.counts["views"], report.counts["archived views"]) == (6, 6)
    assert "6 views, 6 archived: equal to the fold" in report.to_text()


async def test_archived_entries_are_counted(system: System) -> None:
    assert await trim(system, ACCOUNTS) + await trim(system, HISTORIES) > 0
    assert await trim(system, ACCOUNTS) + await trim(system, HISTORIES) == 0
    report = await system.verify()
    assert report.clean, report.to_text()
    assert report.counts["archived entries"] > 0


async def test_a_tombstone_at_another_version(archived: System) -> None:
    await archived.redis.hset(CHEQUE.key("c-2"), "version", "2")
    assert "view ledger.cheque c-2: version 2 in Redis, 3 in PostgreSQL" in await archived.find_problems()


async def test_a_tombstone_of_an_aggregate_that_has_not_ended(archived: System) -> None:
    await archived.redis.hset(CHEQUE.key("c-5"), "archived", "1")
    problems = await archived.find_problems()
    assert "view ledger.cheque c-5: archived, but its aggregate has not ended (version 1)" in problems
    assert "view ledger.cheque c-5: archived, but has data (version 1)" in problems


async def test_a_tombstone_with_other_contributions(archived: System) -> None:
    await archived.redis.hset(CHEQUE.key("c-2"), "counted", "[]")
    problems = await archived.find_problems()
    assert "view ledger.cheque c-2: field counted differs from the fold: [] (version 3)" in problems
    assert any(problem.startswith("counters:ledger.cheque:2:{account/a-1}") for problem in problems)


async def test_a_counter_that_lost_an_archived_view(archived: System) -> None:
    await archived.redis.hincrby("counters:ledger.cheque:2:{account/a-1}", "cheques/STATE_VOIDED", -1)
    (problem,) = await archived.find_problems()
    assert problem.endswith("cheques/STATE_VOIDED is 0, the views contribute 1")


async def test_a_kept_entry_that_is_missing(archived: System) -> None:
    key = CHEQUE.index("account", "a-1")
    members: Any = await archived.redis.zrange(key, 0, -1)
    (member,) = [each for each in members if each.endswith(b":c-2")]
    await archived.redis.zrem(key, member)
    assert f"{key}: {member.decode()} is missing" in await archived.find_problems()


async def test_an_entry_that_should_have_gone(archived: System) -> None:
    key = CHEQUE.index("state", "STATE_VOIDED")
    await archived.redis.zadd(key, {"0000000000000001:c-2": 0})
    assert await archived.find_problems() == [f"{key}: unexpected member 0000000000000001:c-2"]


async def test_an_entry_of_an_archived_history(archived: System) -> None:
    await archived.redis.hset(HISTORY.history("c-2"), "1", "x")
    assert await archived.find_problems() == ["history ledger.cheque_history c-2: entry 1 was archived"]


async def test_a_missing_entry_that_is_not_archived(system: System) -> None:
    await trim(system, ACCOUNTS)
    last: Any = await system.redis.hget(ACCOUNT.key("a-1"), "version")
    assert await system.redis.hkeys(ACCOUNT.history("a-1")) == [last]
    await system.redis.hdel(ACCOUNT.history("a-1"), last)
    problem = f"history ledger.account a-1: entry {last.decode()} is missing"
    assert await system.find_problems() == [problem]


async def test_a_beginning_that_hides_entries(system: System) -> None:
    await system.redis.hset(ACCOUNT.key("a-1"), "history_from", "99")
    assert "history ledger.account a-1: history_from is 99" in await system.find_problems()
