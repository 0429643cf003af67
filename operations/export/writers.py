"""Files of exported events: JSON lines and Parquet."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from diptych.operations.v1.records_pb2 import Event

from operations.rendering.json_lines import format_message, format_object, to_object
from runtime.process.start_error import StartError

STDOUT = "-"
ROWS_OF_GROUP, BYTES_OF_GROUP = 10_000, 32_000_000
"""Events, and bytes of them, that are kept until they are written as one row group of Parquet."""


class Writer(Protocol):
    """Writes events to a file, which is complete once it is closed, wherever the export ended."""

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
        self._file: IO[bytes] = sys.stdout.buffer if output == STDOUT else _create(output)
        self._closes = output != STDOUT

    def write(self, events: Sequence[Event]) -> None:
        self._file.writelines(f"{format_message(event)}\n".encode() for event in events)

    def close(self) -> None:
        self._file.flush()
        if self._closes:
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
        self._file = _create(output)
        self._writer: Any = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def write(self, events: Sequence[Event]) -> None:
        self._rows += map(_build_row, events)
        self._size += sum(event.ByteSize() for event in events)
        if len(self._rows) >= ROWS_OF_GROUP or self._size >= BYTES_OF_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._size = [], 0


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


def _create(output: str) -> IO[bytes]:
    """Create a file; one that exists already may be the only copy of its content."""
    try:
        return Path(output).open("xb")
    except FileExistsError:
        raise StartError(f"--output: {output} exists already; name another file") from None
    except OSError as error:
        raise StartError(f"--output: {output} cannot be created: {error.strerror}") from error
