"""Faults planted in the event store are found and named."""

from dataclasses import replace

import pytest

from operations.verify.verification import verify
from tests.support.harness.verified_system import System
from tests.support.ledger.verification import AGGREGATES


async def test_a_gap_in_versions(system: System) -> None:
    await system.sql("DELETE FROM events WHERE stream = 'ledger.cheque.c-2' AND version = 2")
    problems = await system.find_problems()
    assert "stream ledger.cheque.c-2: version 2 of 3 is missing" in problems
    assert any("receipt names ledger.cheque.c-2@2, which does not exist" in line for line in problems)
    assert any(line.startswith("outbox ") and "no event at this position" in line for line in problems)
    assert any(line.startswith("message ") and "has no event in PostgreSQL" in line for line in problems)


async def test_a_stream_version_other_than_its_last_event(system: System) -> None:
    await system.sql("UPDATE streams SET version = 4 WHERE id = 'ledger.cheque.c-2'")
    assert await system.find_problems() == [
        "stream ledger.cheque.c-2: streams.version is 4, the last event has version 3"
    ]


async def test_a_stream_without_events_and_events_without_a_stream(system: System) -> None:
    await system.sql("UPDATE streams SET id = 'ledger.cheque.c-9' WHERE id = 'ledger.cheque.c-5'")
    assert await system.find_problems() == [
        "stream ledger.cheque.c-5: has events, but no row in streams",
        "stream ledger.cheque.c-9: has a row in streams, but no events",
    ]


async def test_an_event_recorded_before_its_predecessor(system: System) -> None:
    await system.sql(
        "UPDATE events SET recorded_at = '2020-01-01Z' WHERE stream = 'ledger.cheque.c-2' AND version = 2"
    )
    problems = await system.find_problems()
    assert any(
        line.startswith("stream ledger.cheque.c-2: version 2 was recorded at 2020-01-01") for line in problems
    )
    assert any(line.startswith("event ledger.cheque.c-2@2: message ") for line in problems)


async def test_a_wrong_kept_snapshot(system: System) -> None:
    await system.sql(
        "INSERT INTO snapshots SELECT id, fingerprint, 2, state, now() FROM streams WHERE id LIKE '%.c-2'"
        " UNION ALL SELECT id, 'other code', 2, '{}', now() FROM streams WHERE id LIKE '%.c-2'"
    )
    problems = await system.find_problems()
    assert problems
    assert all(line.startswith("kept snapshot of ledger.cheque.c-2: ") for line in problems)


async def test_an_event_whose_data_does_not_parse(system: System) -> None:
    await system.sql(r"UPDATE events SET data = '\xff' WHERE stream = 'ledger.cheque.c-5'")
    assert (
        "event ledger.cheque.c-5@1: data does not parse as acme.ledger.v2.ChequeWritten"
        in await system.find_problems()
    )


async def test_an_event_whose_metadata_cannot_be_read_ends_no_check(system: System) -> None:
    await system.sql("UPDATE events SET metadata = '3' WHERE stream = 'ledger.cheque.c-1' AND version = 1")
    problems = await system.find_problems()
    assert problems
    assert all("c-1" in problem for problem in problems)


async def test_an_event_of_an_unknown_type(system: System) -> None:
    await system.sql("UPDATE events SET type = 'a.v1.B' WHERE stream = 'ledger.cheque.c-5'")
    assert "event ledger.cheque.c-5@1: unknown type a.v1.B" in await system.find_problems()


async def test_events_that_contradict_each_other(system: System) -> None:
    await system.sql(
        "UPDATE events SET type = 'acme.ledger.v1.ChequeWritten', data = '' "
        "WHERE stream = 'ledger.cheque.c-2' AND version = 2"
    )
    problems = await system.find_problems()
    assert any(line.startswith("event ledger.cheque.c-2@2: cannot be folded: ") for line in problems)


async def test_a_receipt_of_a_version_that_does_not_exist(system: System) -> None:
    await system.sql(
        """UPDATE requests SET receipt = '{"ledger.cheque.c-5": 2}' WHERE receipt::text LIKE '%.c-5"%'"""
    )
    (problem,) = await system.find_problems()
    assert problem.startswith("request ")
    assert problem.endswith("receipt names ledger.cheque.c-5@2, which does not exist")


async def test_an_outbox_row_without_an_event(system: System) -> None:
    await system.sql("INSERT INTO outbox (position) VALUES (1000)")
    assert await system.find_problems() == ["outbox 1000: no event at this position"]


async def test_deleted_outbox_rows_are_no_fault(system: System) -> None:
    await system.sql("DELETE FROM outbox")
    assert await system.find_problems() == []


# Snapshots.


async def test_a_snapshot_of_another_fold(system: System) -> None:
    await system.sql(
        "UPDATE streams SET state = jsonb_set(state::jsonb, '{status}', '\"CASHED\"')::json "
        "WHERE id LIKE '%.c-2'"
    )
    assert await system.find_problems() == [
        'snapshot of ledger.cheque.c-2: status is "CASHED", expected "VOIDED" (version 3)'
    ]


async def test_a_snapshot_with_another_nested_value(system: System) -> None:
    await system.sql(
        "UPDATE streams SET state = jsonb_set(state::jsonb, "
        "'{endorsements,0,endorser}', '\"eve\"')::json WHERE id LIKE '%.c-1'"
    )
    (problem,) = await system.find_problems()
    assert problem.startswith("snapshot of ledger.cheque.c-1: endorsements is ")


@pytest.mark.parametrize("state", ["[]", '"PLACED"'])
async def test_a_snapshot_that_is_not_an_object(system: System, state: str) -> None:
    await system.sql(f"UPDATE streams SET state = '{state}' WHERE id LIKE '%.c-2'")
    assert await system.find_problems() == ["snapshot of ledger.cheque.c-2: not a JSON object"]


async def test_a_snapshot_ahead_of_its_stream(system: System) -> None:
    await system.sql("UPDATE streams SET state_version = 4 WHERE id LIKE '%.c-2'")
    assert await system.find_problems() == ["snapshot of ledger.cheque.c-2: version 4, the stream has 3"]


async def test_a_snapshot_that_lags_is_compared_at_its_own_version(system: System) -> None:
    written = "(SELECT state FROM streams WHERE id LIKE '%.c-5')"
    await system.sql(f"UPDATE streams SET state = {written}, state_version = 1 WHERE id LIKE '%.c-2'")
    (problem,) = await system.find_problems()
    assert problem.startswith('snapshot of ledger.cheque.c-2: account_id is "a-2", expected "a-1"')


async def test_snapshots_of_other_code_are_skipped_and_counted(system: System) -> None:
    await system.sql("UPDATE streams SET state = '{}', fingerprint = 'old' WHERE id LIKE '%.c-2'")
    report = await system.verify()
    assert report.clean
    assert (report.counts["snapshots"], report.counts["skipped"]) == (6, 1)


async def test_a_stream_that_its_counterpart_does_not_name(system: System) -> None:
    named = {
        "ledger.cheque.c-1": ["ledger.account.a-1"],
        "ledger.account.a-1": ["ledger.cheque.c-1"],
        "ledger.cheque.c-2": ["ledger.account.a-1"],
        "ledger.cheque.c-3": ["ledger.account.a-9"],
    }
    aggregates = [
        replace(each, list_counterparts=lambda events: named.get(events[0].recorded.stream, ()))
        for each in AGGREGATES
    ]
    report = await verify(system.settings, aggregates=aggregates)
    assert [f"{problem.subject}: {problem.text}" for problem in report.problems] == [
        "stream ledger.cheque.c-2: its counterpart ledger.account.a-1 does not name it",
        "stream ledger.cheque.c-3: its counterpart ledger.account.a-9 does not name it",
    ]
