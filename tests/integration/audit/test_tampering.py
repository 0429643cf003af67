"""Whoever can change every row is found by the checkpoints, and each changed row is named."""

import asyncio
from typing import Any

import asyncpg
import pytest

from contracts.audit.checkpoint import Checkpoint
from contracts.audit.digests import digest_event
from operations.audit.checkpoints import read_text
from operations_server.audit import sealer
from operations_server.records import settled
from tests.integration.audit.conftest import Ledger
from tests.support.ledger.rules.messages import Deposit

AUDIT_COLUMNS = "recorded_at, caller, request_id, type, outcome, stream, duration_us, request_digest, number"
READ_COLUMNS = "recorded_at, caller, on_behalf_of, method, ids, trace_id, number"
CALL_COLUMNS = "recorded_at, method, reason, caller, details, peer, calls, number"
EVENT_COLUMNS = "stream, version, type, data, metadata, recorded_at, digest"
A, B, C = (f"ledger.account.{each}" for each in "abc")

TAMPERINGS = {
    "UPDATE audit SET caller = 'eve' WHERE number = 3": "audit: eve {3}, row 3: it was changed",
    "UPDATE audit SET duration_us = 1 WHERE number = 4": "audit: alice {4}, row 4: it was changed",
    "DELETE FROM audit WHERE number = 12": "audit: row 12: it was deleted",
    f"INSERT INTO audit ({AUDIT_COLUMNS}) SELECT {AUDIT_COLUMNS} FROM audit WHERE number = 1": (
        "audit: alice {1}, row 1: it was inserted"
    ),
    "UPDATE requests SET outcome = 'NOT' WHERE request_id = '{5}'": (
        "requests: alice {5}: it is not the answer"
    ),
    "DELETE FROM requests WHERE request_id = '{6}'": "requests: alice {6}: it was deleted",
    "INSERT INTO requests SELECT 'eve', request_id, type, hash, outcome, rejection, receipt, recorded_at"
    " FROM requests WHERE request_id = '{7}'": "requests: eve {7}: it has no audit row",
    "UPDATE refused_calls SET peer = 'q' WHERE number = 3": "refused_calls: row 3: it was changed",
    "DELETE FROM refused_calls WHERE number = 6": "refused_calls: row 6: it was deleted",
    f"INSERT INTO refused_calls ({CALL_COLUMNS}) SELECT {CALL_COLUMNS} FROM refused_calls WHERE number = 4": (
        "refused_calls: row 4: it was inserted"
    ),
    "UPDATE refused_calls SET number = 3 - number WHERE number IN (1, 2)": (
        "refused_calls: row 2: it was changed"
    ),
    "UPDATE reads SET caller = 'bob' WHERE number = 1": "reads: row 1: it was changed",
    "DELETE FROM reads WHERE number = 2": "reads: row 2: it was deleted",
    f"INSERT INTO reads ({READ_COLUMNS}) SELECT {READ_COLUMNS} FROM reads WHERE number = 3": (
        "reads: row 3: it was inserted"
    ),
    "UPDATE operator_acts SET reason = 'x' WHERE number = 1": "operator_acts: row 1: it was changed",
    "DELETE FROM operator_acts WHERE number = 6": "operator_acts: row 6: it was deleted",
    "UPDATE operator_acts SET outcome = 'NOT' WHERE number = 2": "operator_acts: row 2: its outcome is not",
    "UPDATE operator_act_outcomes SET outcome = 'NOT' WHERE number = 3": (
        "operator_act_outcomes: row 3: it was changed"
    ),
    "DELETE FROM operator_act_outcomes WHERE number = 4": "operator_act_outcomes: row 4: it was deleted",
}
"""What an owner does, and how the row is named then."""


def digest(row: asyncpg.Record, previous: bytes) -> bytes:
    names = ("stream", "version", "type", "recorded_at", "metadata", "data")
    return digest_event(previous, *(row[name] for name in names))


async def test_untouched_records_are_clean(sealed: Ledger) -> None:
    report = await sealed.verify(kept=[Checkpoint.parse(await read_text(sealed.database_url, 1))])
    assert report.findings == []
    assert report.checkpoints == 2
    assert report.sealed == {
        "events": 22,
        "audit": 22,
        "refused_calls": 6,
        "reads": 6,
        "operator_acts": 6,
        "operator_act_outcomes": 6,
    }
    assert (report.events, report.unchained, report.requests) == (22, 0, 22)


async def test_a_row_without_a_number_is_named_whatever_its_time(sealed: Ledger) -> None:
    insert = "INSERT INTO refused_calls (method, reason, details, peer, number, recorded_at)"
    values = "SELECT 'm', 'r', '{}', 'p', NULL, now() + "
    await sealed.execute_as_owner(
        f"{insert} {values} interval '-30 days'", f"{insert} {values} interval '2 hours'"
    )
    await sealed.sealer.seal()
    findings = await sealed.find()
    assert len(findings) == 2
    assert all(line.startswith("refused_calls_unnumbered: row ") for line in findings)
    assert "it was inserted after it was sealed (checkpoint 1)" in findings[0]
    assert "it was inserted: each row has a number" in findings[1]


async def test_each_changed_row_is_named(sealed: Ledger) -> None:
    ids = {f"{{{key}}}": str(id_) for key, id_ in await sealed.fetch("SELECT number, request_id FROM audit")}

    def fill(template: str) -> str:
        for name, id_ in ids.items():
            template = template.replace(name, id_)
        return template

    await sealed.execute_as_owner(*map(fill, TAMPERINGS))
    findings = await sealed.find(max_findings=100)
    for expected in map(fill, TAMPERINGS.values()):
        assert any(line.startswith(expected) for line in findings), (expected, findings)


async def test_each_changed_event_is_named(sealed: Ledger) -> None:
    await sealed.execute_as_owner(
        f"UPDATE events SET data = data || data WHERE stream = '{A}' AND version = 2",
        f"UPDATE events SET metadata = '{{}}' WHERE stream = '{A}' AND version = 4",
        f"UPDATE events SET digest = NULL WHERE stream = '{A}' AND version = 6",
        f"DELETE FROM events WHERE stream = '{B}' AND version = 2",
        "DELETE FROM events e USING streams s WHERE e.stream = s.id AND e.version = s.version"
        f" AND s.id = '{B}'",
        f"INSERT INTO events ({EVENT_COLUMNS}, position) OVERRIDING SYSTEM VALUE"
        f" SELECT '{C}', 101, type, data, metadata, recorded_at, digest, -5 FROM events WHERE position = 1",
    )
    findings = await sealed.find(max_findings=1_000)
    text = "\n".join(findings)
    other = "its digest is not that of its content after the event before it"
    assert f"events: {A}@2: {other}" in findings
    assert f"events: {A}@4: {other}" in findings
    assert f"events: {A}@6, position" in text
    assert f"events: {A}@7: {other}" in findings
    assert f"events: {B}@2: it is missing" in findings
    assert f"events: {B}: version " in text and ", its last one, is missing" in text
    assert f"events: {C}@101, position -5: it was inserted after it was sealed (checkpoint 1)" in findings
    assert f"events: {C}@101: its stream ends before it" in findings
    assert text.count("it was deleted (checkpoint") == 2


async def test_a_chain_that_was_computed_anew_is_found_by_the_checkpoint(sealed: Ledger) -> None:
    connection = await asyncpg.connect(sealed.database_url)
    await connection.execute("SET session_replication_role = replica")
    statement = "SELECT *, metadata::text AS metadata FROM events WHERE stream = $1 ORDER BY version"
    previous, edited = b"", 0
    for row in await connection.fetch(statement, A):
        values = dict(row)
        if values["version"] == 2:
            values["data"], edited = values["data"] * 2, values["position"]
        previous = digest(values, previous)  # type: ignore[arg-type]
        await connection.execute(
            "UPDATE events SET data = $2, digest = $3 WHERE position = $1",
            *(values["position"], values["data"], previous),
        )
    await connection.execute("UPDATE streams SET digest = $2 WHERE id = $1", A, previous)
    await connection.close()
    findings = await sealed.find()
    expected = f"events: {A}@2, position {edited}: it was changed after it was sealed (checkpoint 1)"
    assert expected in findings
    assert not any(line.startswith(f"events: {A}@1,") for line in findings)


async def test_changed_checkpoints_are_named(sealed: Ledger) -> None:
    await sealed.execute_as_owner("UPDATE audit_checkpoints SET entry = replace(entry, ' 11 ', ' 12 ')")
    findings = "\n".join(await sealed.find())
    assert "checkpoints: checkpoint 1: its signature is not valid (s)" in findings
    assert "checkpoint 1: it does not cover the ones before it as they are now" in findings
    assert "checkpoint 2: it does not follow the one before it" in findings


async def test_a_kept_checkpoint_shows_a_past_that_was_cut_off_or_rewritten(sealed: Ledger) -> None:
    kept = Checkpoint.parse(await read_text(sealed.database_url, 2))
    cut = (
        "DELETE FROM audit_checkpoints WHERE number = 2",
        "DELETE FROM audit_segments WHERE checkpoint = 2",
        "DELETE FROM operator_act_outcomes WHERE number > 3",
        "DELETE FROM operator_acts WHERE number > 3",
        "DELETE FROM refused_calls WHERE number > 3",
    )
    await sealed.execute_as_owner(*cut)
    assert await sealed.find() == []  # without it nothing shows: the end can be cut off
    missing = "checkpoints: checkpoint 2: it is missing: the database ends with checkpoint 1"
    assert await sealed.find(kept=[kept]) == [missing]
    await sealed.record()
    await sealed.sealer.seal()
    rewritten = "checkpoints: checkpoint 2: the past was rewritten: it is not the one that was kept"
    assert await sealed.find(kept=[kept]) == [rewritten]


async def test_rows_of_an_earlier_release_are_sealed_by_their_content(ledger: Ledger) -> None:
    await ledger.record()
    await ledger.execute_as_owner(
        "UPDATE events SET digest = NULL WHERE version <= 2",
        "UPDATE streams SET digest = NULL",
        "UPDATE audit SET number = NULL, request_digest = NULL",
        "UPDATE refused_calls SET number = NULL",
        "UPDATE audit SET recorded_at = (SELECT min(recorded_at) FROM audit)",
        *(f"ALTER SEQUENCE {table}_number RESTART" for table in ("audit", "refused_calls")),
    )
    await ledger.execute_as_owner("DELETE FROM events WHERE version > 2", "UPDATE streams SET version = 2")
    await ledger.sealer.seal()
    await ledger.execute(Deposit("a", 5), Deposit("a", 6))
    await ledger.sealer.seal()
    report = await ledger.verify()
    assert report.findings == []
    assert (report.events, report.unchained) == (8, 6)
    assert (report.sealed["audit_unnumbered"], report.sealed["refused_calls_unnumbered"]) == (11, 3)
    await ledger.execute_as_owner(
        f"UPDATE events SET data = data || data WHERE stream = '{A}' AND version = 1",
        "DELETE FROM refused_calls WHERE method = 'First'",
    )
    events, calls = await ledger.find()
    assert f"{A}@1" in events and "it was changed after it was sealed" in events
    assert "refused_calls_unnumbered: row" in calls and "it was deleted" in calls


async def test_a_row_that_is_committed_late_is_not_passed_over(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = await asyncpg.connect(ledger.database_url)
    transaction = late.transaction()
    await transaction.start()
    await late.execute(
        "INSERT INTO refused_calls (method, reason, details, peer) VALUES ('m', 'r', '{}', 'p')"
    )
    await ledger.record()
    waits = asyncio.Event()

    async def await_writers(*arguments: Any) -> None:
        waits.set()
        await settled.await_writers(*arguments)

    monkeypatch.setattr(sealer, "await_writers", await_writers)
    sealing = asyncio.create_task(ledger.sealer.seal())
    await asyncio.wait_for(waits.wait(), 10)  # the newest numbers are known
    assert not sealing.done()
    await transaction.commit()
    await late.close()
    assert await sealing == 1
    report = await ledger.verify()
    assert report.findings == []
    assert report.sealed["refused_calls"] == 4


async def test_many_rows_are_sealed_in_several_checkpoints(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer, "MAX_ROWS", 3)
    await ledger.record()
    assert await ledger.sealer.seal() == 4
    assert await ledger.sealer.seal() == 0
    report = await ledger.verify()
    assert (report.findings, report.checkpoints, report.sealed["events"]) == ([], 4, 11)
