"""Files of exported events: JSON lines and Parquet."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from diptych.operations.v1.records_pb2 import Event

from operations.cli_output import stopping_at_closed_output
from operations.rendering.json_lines import format_message, format_object, to_object
from runtime.process.start_error import StartError

STDOUT = "-"
ROWS_OF_GROUP, BYTES_OF_GROUP = 10_000, 32_000_000
"""Events, and bytes of them, that are kept until they are written as one row group of Parquet."""


class Writer(Protocol):
    """Writes events to a file, which is complete once it is closed, wherever the export ended.

    Raises:
        StartError: by both methods: the file cannot be written, for instance since the disk is full.
    """

    def write(self, events: Sequence[Event]) -> None: ...

    def close(self) -> None: ...


class JsonLinesWriter:
    """Writes each event as a line of JSON.

    Args:
        output: the file to create; `-` for stdout.

    Raises:
        StartError: the file exists already, or cannot be created.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        # Without a buffer: a failed write then leaves nothing that is written later.
        self._file: IO[bytes] | None = None if output == STDOUT else _create(output, buffering=0)
        self._end = 0

    def write(self, events: Sequence[Event]) -> None:
        lines = "".join(f"{format_message(event)}\n" for event in events).encode()
        if self._file is None:
            with stopping_at_closed_output():
                sys.stdout.buffer.write(lines)
                sys.stdout.buffer.flush()
            return
        with _naming(self._output):
            try:
                _write_all(self._file, lines)
            except OSError:
                self._file.truncate(self._end)  # no part of a line
                raise
        self._end += len(lines)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class ParquetWriter:
    """Writes events as rows of Parquet; `data` is JSON.

    Args:
        output: the file to create.

    Raises:
        StartError: pyarrow is not installed; the file exists already, or cannot be created.
    """

    def __init__(self, output: str) -> None:
        if output == STDOUT:
            raise StartError("--output: Parquet needs a file, since its index is at its end")
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            text = "--format: pyarrow is not installed; the extra `diptych[parquet]` has it"
            raise StartError(text) from error
        self._arrow: Any = pyarrow
        self._schema = pyarrow.schema(
            [
                ("position", pyarrow.int64()),
                ("stream", pyarrow.string()),
                ("version", pyarrow.int64()),
                ("type", pyarrow.string()),
                ("record_time", pyarrow.timestamp("us", tz="UTC")),
                ("time_set_aside", pyarrow.timestamp("us", tz="UTC")),
                *((name, pyarrow.string()) for name in _TEXTS),
                ("encoded_data", pyarrow.binary()),
            ]
        )
        self._output = output
        self._file = _create(output)
        self._writer: Any = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._size = 0
        self._is_removed = False

    def write(self, events: Sequence[Event]) -> None:
        self._rows += map(_build_row, events)
        self._size += sum(event.ByteSize() for event in events)
        if len(self._rows) >= ROWS_OF_GROUP or self._size >= BYTES_OF_GROUP:
            self._flush()

    def close(self) -> None:
        if self._is_removed:
            return
        self._flush()
        with self._removing_unfinished():
            self._writer.close()
            self._file.close()

    def _flush(self) -> None:
        if self._rows:
            with self._removing_unfinished():
                self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._size = [], 0

    @contextmanager
    def _removing_unfinished(self) -> Iterator[None]:
        """Remove the file if it cannot be written: without its end nobody can read it."""
        try:
            with _naming(self._output, "; it is removed, since it lacks its index"):
                yield
        except StartError:
            Path(self._output).unlink(missing_ok=True)
            self._is_removed = True
            self._writer.is_open = False  # or pyarrow would close it once more
            raise


_TEXTS = (
    *("actor", "on_behalf_of", "command", "request_id", "correlation_id", "causation_id", "trace_id"),
    *("data", "error"),
)


def _build_row(event: Event) -> dict[str, Any]:
    names = ("position", "stream", "version", "type", *_TEXTS)
    row = {name: getattr(event, name) for name in names if name != "data"}
    row["data"] = format_object(to_object(event.data)) if event.HasField("data") else None
    # Nanoseconds are more than PostgreSQL records.
    for name in ("record_time", "time_set_aside"):
        row[name] = getattr(event, name).ToMicroseconds() if event.HasField(name) else None
    row["encoded_data"] = event.encoded_data or None
    return row


WRITERS: dict[str, Callable[[str], Writer]] = {"jsonl": JsonLinesWriter, "parquet": ParquetWriter}
"""The writers by the name of the format."""


def _create(output: str, *, buffering: int = -1) -> IO[bytes]:
    """Create a file; one that exists already may be the only copy of its content."""
    if not output:
        raise StartError("--output: is empty")
    try:
        return Path(output).open("xb", buffering)
    except FileExistsError:
        raise StartError(f"--output: {output} exists already; name another file") from None
    except OSError as error:
        raise StartError(f"--output: {output} cannot be created: {error.strerror}") from error


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def _naming(output: str, consequence: str = "") -> Iterator[None]:
    """Name the file in the error of a write."""
    try:
        yield
    except OSError as error:
        text = f"--output: {output} cannot be written: {error.strerror}{consequence}"
        raise StartError(text) from error
