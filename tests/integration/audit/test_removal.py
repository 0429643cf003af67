"""Housekeeping removes what is sealed and exported, and the rest can be verified as before."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from operations.audit.export import export
from operations.housekeeping.command import keep_house
from runtime.process.settings import Settings
from tests.integration.audit.conftest import Ledger

KEPT = timedelta(days=30)
AGE = "recorded_at = recorded_at - interval '100 days'"


async def keep(ledger: Ledger, **options: Any) -> dict[str, str]:
    """Do a round of housekeeping; return its lines by the kind of data."""
    lines: list[str] = []
    settings = Settings(
        database_url=ledger.database_url, keep_audit=KEPT, keep_refused_calls=KEPT, keep_reads=KEPT
    )
    assert await keep_house(settings, None, False, lambda entry: lines.append(entry.text), **options) == 0
    return {line.split()[0]: line for line in lines if "not done" not in line}


@pytest.fixture
async def aged(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Sealed records, the first of which are old: in a segment with others, and one segment as a whole."""
    await ledger.record()
    await ledger.execute_as_owner(
        *(f"UPDATE {table} SET {AGE}" for table in ("audit", "refused_calls", "reads")),
        *(f"UPDATE {table} SET {AGE}" for table in ("operator_acts", "operator_act_outcomes")),
        "UPDATE requests SET recorded_at = (SELECT a.recorded_at FROM audit a LIMIT 1)",
        "UPDATE audit SET request_digest = NULL",
    )
    await ledger.sealer.seal()
    await ledger.record()
    await ledger.execute_as_owner(
        f"UPDATE audit SET {AGE} WHERE number BETWEEN 12 AND 14",
        *(f"UPDATE {table} SET {AGE} WHERE number = 4" for table in ("refused_calls", "reads")),
        *(
            f"UPDATE {table} SET {AGE} WHERE number = 4"
            for table in ("operator_acts", "operator_act_outcomes")
        ),
        "UPDATE audit SET request_digest = NULL WHERE number > 11",
        "DELETE FROM requests",
    )
    await ledger.sealer.seal()
    return ledger


async def test_old_records_go_once_they_are_exported_and_the_rest_stays_verifiable(
    aged: Ledger, tmp_path: Path
) -> None:
    assert (await aged.verify()).findings == []
    lines = await keep(aged)
    waits = "everything is kept, the rest is not exported: run diptych audit export, or pass --unexported"
    for kind in ("audit", "refused_calls", "reads", "operator_acts"):
        assert lines[kind].endswith(waits)
    await export(aged.database_url, tmp_path / "export.jsonl")
    lines = await keep(aged)
    removed = {"audit": "14 rows", "refused_calls": "4 rows", "reads": "4 rows", "operator_acts": "4 acts"}
    for kind, count in removed.items():
        assert f" {count} removed, kept since " in lines[kind], lines[kind]
    report = await aged.verify()
    assert report.findings == []
    assert len(report.notes) == 7
    assert "rows from before" in report.notes[0]
    assert report.sealed["refused_calls"] == 3  # one of them by its leaf alone
    await aged.execute_as_owner(
        "DELETE FROM audit WHERE number = 15",
        "DELETE FROM refused_calls WHERE number = 6",
        "UPDATE reads SET caller = 'eve' WHERE number = 5",
        "UPDATE operator_acts SET reason = 'x' WHERE number = 5",
    )
    findings = {finding.subject.split(", ")[-1]: finding.text for finding in (await aged.verify()).findings}
    assert findings == {
        "row 15": "it was deleted",
        "row 6": "it was deleted",
        "row 5": "it was changed after it was sealed",
    }


async def test_unexported_records_go_on_request_and_unsealed_ones_never(ledger: Ledger) -> None:
    await ledger.record()
    await ledger.execute_as_owner(f"UPDATE refused_calls SET {AGE}")
    assert "the rest is not sealed yet" in (await keep(ledger, unexported=True))["refused_calls"]
    await ledger.sealer.seal()
    assert " 3 rows removed" in (await keep(ledger, unexported=True))["refused_calls"]
    report = await ledger.verify()
    assert report.findings == []


async def test_a_second_round_keeps_what_the_first_one_left(aged: Ledger) -> None:
    await keep(aged, unexported=True)
    await aged.record()
    await aged.sealer.seal()
    await aged.execute_as_owner(f"UPDATE operator_acts SET {AGE} WHERE number = 99")
    await keep(aged, unexported=True)
    assert await aged.find() == []
