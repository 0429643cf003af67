"""Sagas of several streams, and sagas that begin now, are compared with the events by independent code."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from contracts import streams
from contracts.envelope import RecordedEvent
from operations.verify.checks import sagas
from operations.verify.model import Aggregate, SagaSpec
from operations.verify.report import Report
from operations.verify.sources import PostgresReader
from process_manager.postgres.store import SagaStore
from runtime.postgres import create_engine
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN, BROKEN_KEY
from tests.support.harness.keys import get_ring
from tests.support.harness.saga_run import SagaRun, cashed, paid, written
from tests.support.ledger.events import EVENTS

BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
AGGREGATES = {
    name: Aggregate(name, EVENTS, snapshot=lambda events: None, projections=())
    for name in ("ledger.account", "ledger.cheque")
}
SPEC = SagaSpec(
    "ledger.account_watch",
    "ledger.account",
    keys={"ledger.cheque": lambda event: event.account_id if hasattr(event, "writer") else ""},
)
EVENT_COLUMNS = ("stream", "version", "type", "data", "recorded_at")
INSERT_EVENT = text("""
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
VALUES (:stream, :version, :type, :data, '{}', :recorded_at)
""")
INSERT_STREAM = text("""
INSERT INTO streams (id, type, version, updated_at, state, state_version, fingerprint)
VALUES (:stream, :stream_type, :version, now(), '{}', 1, '')
ON CONFLICT (id) DO UPDATE SET version = excluded.version
""")


INSERT_REQUESTS = """
INSERT INTO requests (caller, request_id, type, hash, outcome, recorded_at)
SELECT 'process-manager', request_id, 'Deposit', '', 'ACCEPTED', now() FROM saga_steps
"""


class Database:
    """A database whose events are recorded, and delivered to the saga unless the test withholds them."""

    def __init__(self, store: SagaStore, url: str, saga: Any = ACCOUNT_WATCH) -> None:
        self.run, self._url = SagaRun(store, saga), url

    async def record(self, *events: RecordedEvent) -> None:
        engine = create_engine(self._url)
        async with engine.begin() as connection:
            for event in events:
                event_row = {name: getattr(event, name) for name in EVENT_COLUMNS}
                await connection.execute(INSERT_EVENT, event_row)
                stream_row = {"stream": event.stream, "version": event.version}
                stream_row["stream_type"] = streams.stream_type(event.stream)
                await connection.execute(INSERT_STREAM, stream_row)
        await engine.dispose()

    async def sql(self, statement: str) -> None:
        """Execute a statement that the process manager's role may not."""
        engine = create_engine(self._url)
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    async def record_and_deliver(self, *events: RecordedEvent) -> None:
        await self.record(*events)
        await self.run.deliver(*events)

    async def find_problems(self) -> list[str]:
        postgres, report = PostgresReader(self._url, get_ring), Report(max_findings=20)
        try:
            await sagas.check(postgres, [SPEC], AGGREGATES, report, within=0.0)
        finally:
            await postgres.close()
        prefix = "saga ledger.account_watch"
        return sorted(f"{each.subject.removeprefix(prefix).strip()}: {each.text}" for each in report.problems)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SagaStore]:
    store = SagaStore(database_url)
    yield store
    await store.close()


@pytest.fixture
async def database(store: SagaStore, database_url: str) -> Database:
    database = Database(store, database_url)
    await database.record_and_deliver(
        paid("a"), paid("a", 2), paid("b"), written("c"), cashed("c"), written("d", account="b")
    )
    return database


async def test_a_saga_of_two_streams_is_clean(database: Database) -> None:
    assert await database.find_problems() == []


async def test_an_event_of_its_own_stream_that_was_not_consumed(database: Database) -> None:
    await database.record(paid("b", version=2), paid("x"))
    assert await database.find_problems() == ["b: consumed version 1 of 2", "x: consumed version 0 of 1"]


async def test_a_saga_without_a_stream(database: Database) -> None:
    await database.run.query("UPDATE sagas SET id = 'nobody' WHERE id = 'b'")
    problems = await database.find_problems()
    assert "nobody: no stream ledger.account.nobody" in problems
    assert "b: consumed version 0 of 1" in problems


async def test_a_step_whose_outcome_the_write_model_contradicts(database: Database) -> None:
    await database.sql(INSERT_REQUESTS)
    await database.run.query("UPDATE saga_steps SET outcome = 'OK'")
    assert await database.find_problems() == []
    await database.run.query("UPDATE saga_steps SET outcome = 'LEDGER_TOO_POOR' WHERE id = 'a'")
    assert await database.find_problems() == [
        "a: deposit-c-1 (attempt 1) has outcome LEDGER_TOO_POOR, the write model recorded ACCEPTED"
    ]


async def test_a_step_that_the_write_model_has_no_record_of(database: Database) -> None:
    await database.run.query("UPDATE saga_steps SET outcome = 'OK' WHERE id = 'a'")
    assert await database.find_problems() == [
        "a: deposit-c-1 (attempt 1) has outcome OK, the write model recorded nothing"
    ]


async def test_a_database_without_a_process_manager_is_clean(database: Database) -> None:
    await database.sql("TRUNCATE sagas, saga_steps, saga_timers, saga_checkpoints")
    assert await database.find_problems() == []


async def test_an_event_of_another_stream_that_was_not_consumed(database: Database) -> None:
    await database.record(written("d", version=2, account="b"), written("e"))
    assert await database.find_problems() == [
        "a: consumed version 0 of 1 of ledger.cheque.e",
        "b: consumed version 1 of 2 of ledger.cheque.d",
    ]


async def test_a_position_beyond_the_stream_and_one_without_a_stream(database: Database) -> None:
    for stream in ("ledger.cheque.c", "ledger.cheque.nothing"):
        await database.run.query(
            "UPDATE sagas SET other_streams = other_streams || "
            f"jsonb_build_object('{stream}', jsonb_build_object('version', 7)) WHERE id = 'a'"
        )
    assert await database.find_problems() == [
        "a: consumed version 7 of 1 of ledger.cheque.c",
        "a: no stream ledger.cheque.nothing",
    ]


async def test_a_failed_input_and_a_parked_stream(database: Database) -> None:
    await database.record_and_deliver(written("e", BROKEN), written("f", account=BROKEN_KEY))
    problems = [text.partition(" [")[0] for text in await database.find_problems()]
    assert problems == [
        ": ledger.cheque.f is parked at version 1: RuntimeError: the key is broken",
        "a: failed input: version 1 of ledger.cheque.e failed: RuntimeError: the saga's code is broken",
        "broken-key: consumed version 0 of 1 of ledger.cheque.f",
    ]


async def test_events_from_before_the_beginning_belong_to_no_instance(
    store: SagaStore, database_url: str
) -> None:
    database = Database(store, database_url, replace(ACCOUNT_WATCH, begins="now"))
    await database.run.engine.begin(database.run.sagas[0])
    old = paid("a", at=BEFORE), paid("old", at=BEFORE), written("c", at=BEFORE), written("old", at=BEFORE)
    await database.record_and_deliver(*old)
    await database.record_and_deliver(paid("a", 2), written("c", version=2))
    assert await database.find_problems() == []
    await database.record(paid("old", 2))
    assert await database.find_problems() == ["old: consumed version 0 of 2"]


@pytest.mark.parametrize("change", ["state = '[]'", "other_streams = '[]'", "other_streams = '3'"])
async def test_an_instance_that_cannot_be_read_is_its_own_problem(database: Database, change: str) -> None:
    await database.run.query(f"UPDATE sagas SET {change} WHERE id = 'a'")
    await database.run.engine.inspect(ACCOUNT_WATCH.name, "a")
    await database.record(paid("b", version=2))
    problems = await database.find_problems()
    assert "b: consumed version 1 of 2" in problems
    assert [problem for problem in problems if problem.startswith("a: its row cannot be read: ")]
    assert {problem.partition(":")[0] for problem in problems} == {"a", "b"}


async def test_a_position_that_is_no_number(database: Database) -> None:
    await database.run.query(
        'UPDATE sagas SET other_streams = \'{"ledger.cheque.c": {"version": "x"}}\' WHERE id = \'a\''
    )
    assert "a: its position in ledger.cheque.c cannot be read: x" in await database.find_problems()


async def test_instances_of_a_saga_that_no_context_has(database: Database, database_url: str) -> None:
    await database.run.query("UPDATE sagas SET saga = 'ledger.gone' WHERE id = 'b'")
    text_ = "1 instances not compared: no chosen context has this saga"
    postgres = PostgresReader(database_url, get_ring)
    try:
        some, all_ = Report(), Report()
        await sagas.check(postgres, [SPEC], AGGREGATES, some, within=0.0)
        await sagas.check(postgres, [SPEC], AGGREGATES, all_, within=0.0, all_contexts=True)
    finally:
        await postgres.close()
    assert f"saga ledger.gone: {text_}" in some.notes
    assert ("saga ledger.gone", text_) in [(problem.subject, problem.text) for problem in all_.problems]


async def test_a_check_that_fails_is_a_finding(database: Database, database_url: str) -> None:
    async def check(*_: object) -> None:
        raise LookupError("no such state")

    postgres, report = PostgresReader(database_url, get_ring), Report()
    try:
        await sagas.check(postgres, [replace(SPEC, check=check)], AGGREGATES, report, within=0.0)
    finally:
        await postgres.close()
    assert [problem.text for problem in report.problems] == ["its check failed: LookupError: no such state"]
    assert report.counts["sagas"] == 2
