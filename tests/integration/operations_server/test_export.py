"""`diptych events export`: a file with every event once, wherever the export ends."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from devstack.stack import Stack
from operations.processes import OPERATIONS_SERVER
from tests.support.harness.forked_process import start_python

EVENTS = 1_700
MAIN = "from operations import cli; cli.main()"
FILL = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
SELECT 's.t.' || n, 1, 'diptych.ordering.v1.OrderCancelled', convert_to(chr(10) || chr(3) || 'o-1', 'UTF8'),
  json_build_object(
    'actor', 'alice', 'causation_id', 'r-' || n,
    'time_set_aside', CASE WHEN n = 150 THEN '2026-01-01T15:00:00+00:00' END
  ), now()
FROM generate_series(1, $1::int) n
"""


@pytest.fixture
async def filled(shared_stack: Stack, database: Any) -> Stack:
    await database.execute(FILL, EVENTS)
    return shared_stack


async def start_export(stack: Stack, *arguments: str) -> asyncio.subprocess.Process:
    settings = stack.settings
    environment = {
        "DIPTYCH_OPERATIONS_ADDRESS": settings.operations_address,
        "DIPTYCH_OPERATIONS_TOKEN": settings.operations_token,
    }
    return await start_python(
        *("-c", MAIN, "events", "export", *arguments), environment={**os.environ, **environment}
    )


async def export(stack: Stack, *arguments: str) -> tuple[int | None, bytes, str]:
    process = await start_export(stack, *arguments)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out, err.decode()


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_both_formats_have_every_event_once(filled: Stack, tmp_path: Path) -> None:
    lines, rows = tmp_path / "events.jsonl", tmp_path / "events.parquet"
    code, _, err = await export(filled, "--output", str(lines))
    assert (code, f"{EVENTS:,} events up to position {EVENTS:,}" in err) == (0, True), err
    code, _, err = await export(
        filled, "--output", str(rows), "--format", "parquet", "--from-position", "101"
    )
    assert code == 0, err
    events = read_lines(lines)
    assert [event["position"] for event in events] == list(range(1, EVENTS + 1))
    assert (events[0]["data"], events[0]["actor"]) == ({"order_id": "o-1"}, "alice")
    table = pyarrow.parquet.read_table(rows).to_pylist()
    assert [row["position"] for row in table] == list(range(101, EVENTS + 1))
    for row, event in zip(table, events[100:], strict=True):
        assert json.loads(row["data"]) == event["data"]
        assert (row["stream"], row["request_id"]) == (event["stream"], event["request_id"])
    assert [event["position"] for event in events if event.get("time_set_aside")] == [150]
    assert [row["position"] for row in table if row["time_set_aside"]] == [150]


async def test_a_file_is_never_overwritten_and_bad_arguments_are_one_line(
    filled: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "events"
    file.write_text("the only copy")
    for arguments, text in (
        (["--output", str(file)], "exists already"),
        (["--output", str(tmp_path / "none" / "x")], "cannot be created"),
        (["--output", "-", "--format", "parquet"], "needs a file"),
        (["--output", str(tmp_path / "y"), "--from-position", str(EVENTS + 2)], "POSITION_NOT_REACHED"),
    ):
        code, _, err = await export(filled, *arguments)
        assert code in (1, 2)
        assert text in err.splitlines()[-1]
        assert "Traceback" not in err
    assert file.read_text() == "the only copy"


async def test_an_export_to_stdout_ends_quietly_when_its_reader_goes(filled: Stack) -> None:
    process = await start_export(filled, "--output", "-")
    assert process.stdout is not None
    assert process.stderr is not None
    first = json.loads(await process.stdout.readline())
    assert first["position"] == 1
    process.stdout._transport.close()  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        err = (await process.stderr.read()).decode()
    assert "Traceback" not in err, err


async def test_a_restart_of_the_server_costs_no_event(filled: Stack, tmp_path: Path) -> None:
    """The export begins while the server is away, and continues after the last position."""
    file = tmp_path / "events.jsonl"
    (server,) = filled.of(OPERATIONS_SERVER)
    await server.stop()
    process = await start_export(filled, "--output", str(file))
    assert process.stderr is not None
    assert b"trying again" in await process.stderr.readline()
    await server.start()
    async with asyncio.timeout(60):
        await process.communicate()
    assert process.returncode == 0
    assert [event["position"] for event in read_lines(file)] == list(range(1, EVENTS + 1))


async def test_without_pyarrow_one_line_names_the_extra(filled: Stack, tmp_path: Path) -> None:
    program = f"import sys\nsys.modules['pyarrow'] = None\n{MAIN}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "events", "export", "--format", "parquet"),
        *("--output", str(tmp_path / "x")),
        env={**os.environ, "DIPTYCH_OPERATIONS_TOKEN": filled.settings.operations_token},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode != 0
    assert "diptych[parquet]" in err.decode()
    assert "Traceback" not in err.decode()
