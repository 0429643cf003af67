"""The deadlines that stand for instances are compared with the events by independent code."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from operations import saga_feeds
from operations.verify.checks import sagas
from operations.verify.checks.inventory import AGGREGATES, SAGAS
from operations.verify.report import Report
from operations.verify.sources import PostgresReader
from process_manager.postgres.store import SagaStore
from process_manager.sagas.inventory import RESERVATIONS
from runtime.process.settings import Settings
from tests.integration.verify.test_saga_streams import Database
from tests.support.builders.reservations import ended, made
from tests.support.harness.keys import get_ring

SOON = datetime.now(UTC).replace(microsecond=123_000) + timedelta(hours=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    store = SagaStore(database_url)
    database = Database(store, database_url, RESERVATIONS)
    await database.record_and_deliver(made("a", SOON), made("b", SOON), made("c", SOON), ended("c", 2))
    yield database
    await database.run.deadlines.close()
    await store.close()


async def find_problems(url: str) -> list[str]:
    postgres, report = PostgresReader(url, get_ring), Report(max_findings=20)
    aggregates = {each.stream_type: each for each in AGGREGATES}
    try:
        await sagas.check(postgres, SAGAS, aggregates, report, within=0.0)
    finally:
        await postgres.close()
    return sorted(f"{each.subject.rpartition(' ')[2]}: {each.text}" for each in report.problems)


async def test_deadlines_that_follow_from_the_events_are_clean(database: Database, database_url: str) -> None:
    assert await find_problems(database_url) == []


async def test_a_deadline_that_is_lost_or_whose_end_was_ignored_is_found(
    database: Database, database_url: str
) -> None:
    await database.record(ended("a", 2))
    await database.run.query("DELETE FROM saga_deadlines WHERE id = 'b'")
    await database.run.query(
        "INSERT INTO saga_deadlines (saga, id, partition, due_at, set_at, correlation_id)"
        f" VALUES ('{RESERVATIONS.name}', 'nobody', 0, now(), now(), '')"
    )
    assert await find_problems(database_url) == [
        "a: its deadline is watched, though it has ended",
        "b: its deadline is not watched",
        "nobody: its deadline is watched, though it has ended",
    ]


async def test_a_deadline_at_another_time_is_found(database: Database, database_url: str) -> None:
    await database.run.query("UPDATE saga_deadlines SET due_at = due_at + interval '1 s' WHERE id = 'a'")
    (problem,) = await find_problems(database_url)
    assert problem.startswith("a: its deadline is watched for ")


async def test_a_deadline_that_is_long_past_is_found(database: Database, database_url: str) -> None:
    past = datetime.now(UTC).replace(microsecond=123_000) - timedelta(hours=1)
    await database.record_and_deliver(made("late", past))
    assert await find_problems(database_url) == [
        f"late: nothing has begun at its deadline {past.isoformat()}"
    ]
    await database.run.deadlines.begin_instances(await database.run.deadlines.read_due(range(16), 10))
    assert await find_problems(database_url) == []


async def test_an_instance_that_began_at_its_deadline_is_compared_as_any_other(
    database: Database, database_url: str
) -> None:
    due = await database.run.deadlines.read_due(range(16), 10)
    assert due == []
    await database.run.query("UPDATE saga_deadlines SET due_at = now() WHERE id = 'a'")
    due = await database.run.deadlines.read_due(range(16), 10)
    await database.run.deadlines.begin_instances(due)
    assert await find_problems(database_url) == []
    await database.record(ended("a", 2))
    assert await find_problems(database_url) == ["a: consumed version 1 of 2"]


async def test_operators_see_deadlines(database: Database, database_url: str) -> None:
    settings = Settings(database_url=database_url, contexts="inventory")
    facts = map(saga_feeds.describe_fact, await saga_feeds.read_feeds(settings))
    start = "inventory.reservation_deadline has 2 deadlines to come, the next one at 20"
    assert any(fact.startswith(start) for fact in facts)
