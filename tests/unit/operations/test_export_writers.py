"""Files of exported events when they cannot be written, and exports that end early."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.operations.v1.operations_service_pb2 import ExportEventsRequest
from diptych.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from diptych.operations.v1.records_pb2 import Event

from operations.client.errors import CallRefused
from operations.commands.export import _end_early
from operations.export.command import Export
from operations.export.writers import JsonLinesWriter, ParquetWriter
from runtime.process.start_error import StartError

EVENTS = [Event(id=f"o@{number}", position=number) for number in range(1, 4)]


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files end at a number of bytes, with an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_on_a_full_disk_ends_with_the_last_whole_write(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    writer = JsonLinesWriter(str(file))
    writer.write(EVENTS[:2])
    with full_disk(file.stat().st_size + 10), pytest.raises(StartError, match=f"^--output: {file} cannot"):
        writer.write(EVENTS[2:])
    _end_early(writer, str(file), position=2, first=1)
    assert [json.loads(line)["position"] for line in file.read_text().splitlines()] == [1, 2]


def test_a_parquet_file_that_cannot_be_completed_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "events.parquet"
    writer = ParquetWriter(str(file))
    writer.write(EVENTS)
    with full_disk(10), pytest.raises(StartError, match=r"cannot be written: .*; it is removed"):
        writer.close()
    assert not file.exists()
    _end_early(writer, str(file), position=3, first=1)


def test_an_export_without_an_event_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    _end_early(JsonLinesWriter(str(file)), str(file), position=6, first=7)
    assert not file.exists()


def test_a_reader_that_has_gone_ends_the_export_without_a_message() -> None:
    program = (
        "from operations.export.writers import JsonLinesWriter\n"
        "from diptych.operations.v1.records_pb2 import Event\n"
        "JsonLinesWriter('-').write([Event(id='o@1')])"
    )
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (run.returncode, run.stderr) == (141, b"")


class RefusingApi:
    """Refuses each call."""

    stub = OperationsServiceStub(grpc.insecure_channel("127.0.0.1:1"))
    calls = 0

    def follow(self, _method: Any, _request: Any) -> Iterator[Any]:
        self.calls += 1
        raise CallRefused("SCOPE_MISSING: no")


def test_a_refused_export_is_not_tried_again(tmp_path: Path) -> None:
    api: Any = RefusingApi()
    export = Export(api, JsonLinesWriter(str(tmp_path / "x")), print)
    with pytest.raises(CallRefused):
        export.run(ExportEventsRequest())
    assert api.calls == 1
