"""The output of a serving process: where it can be written, where it cannot, and what else is printed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.support.harness.toy_process import toy_process
from tests.support.harness.waiting import until

STOP = 8.0
"""Seconds that a process may take to stop, on a busy machine; it waits one for its stream."""
CALLS, BURST = 300, 20
"""Each logs a line of some 250 bytes: more than a pipe holds."""


@pytest.fixture
def unread_pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe that is open for reading, but never read."""
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR)
    yield tmp_path / "pipe"
    os.close(end)


@pytest.mark.parametrize(
    ("redirection", "arguments"),
    [
        ("> /dev/full 2>&1", ()),
        (">&- 2>&-", ()),
        pytest.param("> {pipe} 2>&1", ("--workers", "2"), marks=pytest.mark.long),
        pytest.param("> {pipe} 2>&1", (), marks=pytest.mark.long),
        pytest.param("> /dev/full 2>&1", ("--workers", "2"), marks=pytest.mark.long),
        pytest.param(">&- 2>&-", ("--workers", "2"), marks=pytest.mark.long),
    ],
)
async def test_a_process_serves_and_stops_though_nothing_can_be_written(
    tmp_path: Path, unread_pipe: Path, redirection: str, arguments: tuple[str, ...]
) -> None:
    redirection = redirection.format(pipe=unread_pipe)
    async with toy_process(tmp_path, *arguments, redirection=redirection) as toy:
        await toy.wait_serving()
        await toy.get("print-1")
        async with asyncio.timeout(60):
            for _ in range(CALLS // BURST):
                await asyncio.gather(*[toy.get("traced") for _ in range(BURST)])
        await toy.wait_serving()
        toy.process.send_signal(signal.SIGTERM)
        assert await toy.wait_ended(STOP) == 0


@pytest.mark.long
async def test_a_process_that_fails_ends_though_nobody_reads_its_output(
    tmp_path: Path, unread_pipe: Path
) -> None:
    async with toy_process(tmp_path, redirection=f"> {unread_pipe} 2>&1") as toy:
        await toy.wait_serving()
        await toy.get("print-1")
        await toy.get("die")
        assert await toy.wait_ended(STOP) == 70
    for invalid in ({"DIPTYCH_JWKS": "/nowhere/jwks.json"}, {"DIPTYCH_LOG_LEVEL": "loud"}):
        async with toy_process(tmp_path, environment=invalid, redirection=f"> {unread_pipe} 2>&1") as toy:
            assert await toy.wait_ended(60) == 2


async def test_whatever_libraries_print_becomes_lines(tmp_path: Path) -> None:
    async with toy_process(tmp_path) as toy:
        await toy.wait_serving()
        await toy.get("print-42")
        toy.process.send_signal(signal.SIGTERM)
        assert await toy.wait_ended() == 0
        lines = {line["logger"]: line for line in toy.lines()}
        assert (lines["stdout"]["message"], lines["stdout"]["level"]) == ("printed 42", "info")
        assert (lines["stderr"]["message"], lines["stderr"]["level"]) == ("complained 42", "warning")
        assert "warned 42" in lines["py.warnings"]["message"]
        assert all(line["service"] == "tests.support.harness.toy_server" for line in lines.values())
        assert set(toy.stderr().splitlines()) == {"in C"}


async def test_a_query_is_logged_at_level_debug(tmp_path: Path) -> None:
    async with toy_process(tmp_path, environment={"DIPTYCH_LOG_LEVEL": "debug"}) as toy:
        await toy.wait_serving()
        for cheque_id in ("stale-1200", "rule-1"):
            with suppress(grpc.aio.AioRpcError):
                await toy.get(cheque_id)
        await until(lambda: toy.messages().count("Query answered") == 2)
        answered, missing = [line for line in toy.lines() if line["message"] == "Query answered"]
        assert (answered["method"], answered["level"]) == ("acme.ledger.v1.QueryService/GetCheque", "debug")
        assert (answered["outcome"], answered["staleness"], answered["userId"]) == ("OK", 1200, "alice")
        assert 0 < answered["duration"] < 60_000
        assert (missing["outcome"], missing["staleness"]) == ("CHEQUE_NOT_FOUND", None)


CRASH = """
import sys, threading
from runtime.process import logs
from runtime.process.logs import output
logs.configure(service="crash")
output.take_over()
class Broken:
    def __del__(self): raise ValueError("in a destructor")
Broken()
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start(); thread.join()
raise RuntimeError("at the end")
"""


async def test_a_crash_is_the_last_line(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASH, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["message"] for line in lines] == ["Exception ignored", "Thread failed", "Process failed"]
    assert [line["exception"].splitlines()[-1] for line in lines] == [
        "ValueError: in a destructor",
        "ZeroDivisionError: division by zero",
        "RuntimeError: at the end",
    ]
