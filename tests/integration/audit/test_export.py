"""An export has all records, continues where the last one ended, and is verified by itself."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts.audit.checkpoint import Checkpoint
from operations import cli
from operations.audit.checkpoints import read_text
from operations.audit.export import export
from operations.audit.export_file import verify_file
from runtime.process.start_error import StartError
from tests.integration.audit.conftest import PUBLIC_KEYS, Ledger
from tests.support.harness.keys import write_ring


def find(path: Path, *kept: Checkpoint) -> list[str]:
    return [finding.to_text() for finding in verify_file(path, PUBLIC_KEYS, kept, 100).findings]


async def test_an_export_is_verified_by_itself(sealed: Ledger, tmp_path: Path) -> None:
    await sealed.execute_as_owner(
        "UPDATE events SET digest = NULL WHERE stream = 'ledger.account.c' AND version = 9"
    )
    path = tmp_path / "all.jsonl"
    done = await export(sealed.database_url, path)
    assert (done.first_checkpoint, done.last_checkpoint, done.is_recorded) == (1, 2, True)
    report = verify_file(path, PUBLIC_KEYS, [Checkpoint.parse(await read_text(sealed.database_url, 2))], 9)
    assert (report.findings, report.checkpoints) == ([], 2)
    assert report.sealed == (await sealed.verify()).sealed
    with pytest.raises(StartError, match="nothing to export"):
        await export(sealed.database_url, tmp_path / "more.jsonl")
    assert not (tmp_path / "more.jsonl").exists()
    with pytest.raises(StartError, match="exists"):
        await export(sealed.database_url, path, after=0)


async def test_an_export_continues_after_the_last_one(sealed: Ledger, tmp_path: Path) -> None:
    await export(sealed.database_url, tmp_path / "first.jsonl")
    await sealed.record()
    await sealed.sealer.seal()
    done = await export(sealed.database_url, tmp_path / "second.jsonl")
    assert (done.first_checkpoint, done.last_checkpoint, done.is_recorded) == (3, 3, True)
    assert find(tmp_path / "second.jsonl") == []
    await sealed.record()
    await sealed.sealer.seal()
    await sealed.record()
    await sealed.sealer.seal()
    done = await export(sealed.database_url, tmp_path / "gap.jsonl", after=4)
    assert not done.is_recorded


async def test_a_changed_file_is_not_clean(sealed: Ledger, tmp_path: Path) -> None:
    path, changed = tmp_path / "all.jsonl", tmp_path / "changed.jsonl"
    await export(sealed.database_url, path)
    lines = path.read_text().splitlines(keepends=True)
    audit = next(index for index, line in enumerate(lines) if '"audit"' in line)
    event = json.loads(lines[0])
    event["values"][5] = '{"actor":"eve"}'
    for content, expected in {
        "".join([json.dumps(event) + "\n", *lines[1:]]): "events: ledger.account.",
        "".join(lines).replace("SCOPE_MISSING", "SCOPE_FOUND", 1): "refused_calls: rows up to",
        "".join(lines[:audit] + lines[audit + 1 :]): "audit: rows up to",
        "".join([*lines[:2], *lines[1:]]): "events: rows up to",
        "".join([lines[1], lines[0], *lines[2:]]): "events: rows up to",
        "".join(lines[:-1]): "file: line",
        "".join(line for line in lines if "number 1\\n" not in line): "reads: rows up to",
        "".join(lines).replace("number 2", "number 3", 1): "checkpoints: checkpoint 3: its signature",
        "nonsense\n" + "".join(lines): "file: line 1: it is no row",
        "": "file: the file: it has no checkpoint",
    }.items():
        changed.write_text(content)
        findings = find(changed)
        assert any(finding.startswith(expected) for finding in findings), (expected, findings)


async def test_the_command_line_exports_verifies_and_searches(
    sealed: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPTYCH_DATABASE_URL", sealed.database_url)
    monkeypatch.setenv("DIPTYCH_KEYS", str(write_ring(tmp_path / "keys.json")))

    async def run(*arguments: str, code: int = 0) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.main, arguments)
        assert result.exit_code == code, result.output
        return result.output

    path, kept = tmp_path / "export.jsonl", tmp_path / "kept.txt"
    assert "rows of the checkpoints 1 to 2" in await run("audit", "export", "--output", str(path))
    kept.write_text(await run("audit", "checkpoint"))
    assert "no difference" in await run("audit", "verify", "--checkpoint", str(kept))
    assert "no difference" in await run("audit", "verify", "--export", str(path), "--checkpoint", str(kept))
    keys = tmp_path / "seal.pub"
    keys.write_text(await run("keys", "public"))
    assert "no difference" in await run("audit", "verify", "--public-keys", str(keys))
    found = await run("audit", "search", "--person", "pat", "--json")
    assert {json.loads(line)["record"] for line in found.splitlines()} == {"reads"}
    assert "LEDGER_TOO_POOR" in await run(
        "audit", "search", "--caller", "alice", "--stream", "ledger.account.c"
    )
    assert "olga  Skip" in await run("audit", "search", "--caller", "olga")
    await sealed.execute_as_owner("UPDATE reads SET caller = 'bob' WHERE number = 1")
    output = await run("audit", "verify", code=1)
    assert "reads: row 1: it was changed after it was sealed (checkpoint 1)" in output


async def test_an_export_that_fails_leaves_no_file(sealed: Ledger, tmp_path: Path) -> None:
    await sealed.execute_as_owner("DELETE FROM audit_checkpoints WHERE number = 1")
    with pytest.raises(StartError, match="checkpoint 1 is missing"):
        await export(sealed.database_url, tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()
