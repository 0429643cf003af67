"""`diptych audit export`: all records of a range of checkpoints, in a file that is verified by itself.

How it works. A line is an object. The rows of a checkpoint come before it, in the order of its segments and
of their keys. Values are those that digests cover: texts, integers, null, `{"time": ...}` in microseconds
since 1970 and `{"bytes": ...}` in Base64. An event has the digest of the event before it as well, so that
each line can be verified. Once the file is written, its range is recorded: housekeeping removes only what is
exported.
"""

import json
import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from contracts.audit.checkpoint import Checkpoint, join_text
from contracts.audit.digests import count_microseconds
from operations.audit.database import Driver, connect
from operations_server.postgres.schema import AUDITOR_ROLE
from runtime.audit.records import RECORDS, Record
from runtime.process.start_error import StartError

READ_SEALED_UNTIL = "SELECT sealed_at FROM audit_sealer WHERE id = 1"
READ_END = "SELECT coalesce(max(last_checkpoint), 0) FROM audit_exports"
READ_LAST = "SELECT coalesce(max(number), 0) FROM audit_checkpoints"
READ_CHECKPOINT = "SELECT entry, root, key_id, signature FROM audit_checkpoints WHERE number = $1"
READ_REMOVED = "SELECT coalesce(max(until), 0) FROM audit_removals WHERE record = $1"
READ_EVENTS = """
SELECT e.position, (
  SELECT p.digest FROM events p
  WHERE p.stream = e.stream AND p.version < e.version AND p.digest IS NOT NULL AND e.digest IS NOT NULL
  ORDER BY p.version DESC LIMIT 1
), e.stream, e.version, e.type, e.recorded_at, e.metadata::text, e.data, e.digest
FROM events e WHERE e.position > $1 AND e.position <= $2 ORDER BY e.position
"""
RECORD_EXPORT = """
INSERT INTO audit_exports (first_checkpoint, last_checkpoint, complete_until, file_digest)
VALUES ($1, $2, $3, $4)
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file has."""

    first_checkpoint: int
    last_checkpoint: int
    rows: int
    is_recorded: bool
    """Whether housekeeping takes it for exported; not if earlier checkpoints are missing."""


async def export(
    database_url: str,
    path: Path,
    *,
    after: int | None = None,
    observe: Callable[[int, int], None] = lambda *_: None,
) -> Exported:
    """Write the records of all checkpoints after one into a new file.

    Args:
        database_url: of the write model.
        path: of the file.
        after: the number of a checkpoint; None for the last one that was exported.
        observe: called with the number of checkpoints that are written, and of all.

    Raises:
        StartError: the file cannot be written, or there is nothing to export.
    """
    async with connect(database_url, AUDITOR_ROLE) as driver:
        complete_until = await driver.fetchval(READ_SEALED_UNTIL)  # before the last checkpoint
        end, last = await driver.fetchval(READ_END), await driver.fetchval(READ_LAST)
        after = end if after is None else after
        if after >= last:
            raise StartError(f"nothing to export: checkpoint {last} is the last one")
        writer, is_recorded = _Writer(path), after <= end
        try:
            for number in range(after + 1, last + 1):
                await _write_checkpoint(driver, writer, number)
                observe(number - after, last - after)
            digest = writer.close()
        except BaseException as error:
            writer.discard()  # nobody takes a part for an export
            if isinstance(error, OSError):
                raise StartError(f"{path}: {error.strerror or error}") from error
            raise
        if is_recorded:
            await driver.execute(RECORD_EXPORT, after + 1, last, complete_until, digest)
    return Exported(after + 1, last, writer.rows, is_recorded)


class _Writer:
    """Writes lines into a new file."""

    def __init__(self, path: Path) -> None:
        try:
            self._file: BinaryIO = path.open("xb")
        except OSError as error:
            raise StartError(f"{path}: {error.strerror or error}") from error
        self._path = path
        self._hash = sha256()
        self.rows = 0

    def write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        self._file.write(line)

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> bytes:
        """Make the file durable; return the digest of its content."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.digest()


async def _write_checkpoint(driver: Driver, writer: _Writer, number: int) -> None:
    row = await driver.fetchrow(READ_CHECKPOINT, number)
    if row is None:
        raise StartError(f"checkpoint {number} is missing: run diptych audit verify")
    text = join_text(row["entry"], row["root"], row["key_id"], row["signature"])
    for segment in Checkpoint.parse(text).segments:
        record = next((each for each in RECORDS if each.name == segment.record), None)
        if record is None or await driver.fetchval(READ_REMOVED, record.name) > segment.after:
            raise StartError(
                f"checkpoint {number}: rows of {segment.record} were removed; export after a later one"
            )
        for line in await _read_lines(driver, record, segment.after, segment.until):
            writer.write(line)
            writer.rows += 1
    writer.write({"checkpoint": text})


async def _read_lines(driver: Driver, record: Record, after: int, until: int) -> Sequence[Mapping[str, Any]]:
    if record.name == "events":
        found = await driver.fetch(READ_EVENTS, after, until)
        return [{"record": record.name, "key": row[0], "values": _encode(row[1:])} for row in found]
    found = await driver.fetch(record.select(), after, until, None)
    lines = [
        (record.build_row(tuple(row)), {"record": record.name, "key": row[0], "values": _encode(row[2:])})
        for row in found
    ]
    lines.sort(key=lambda line: (line[0].key, line[0].leaf))
    return [line for _, line in lines]


def _encode(values: Sequence[Any]) -> list[Any]:
    return list(map(encode_value, values))


def encode_value(value: Any) -> Any:
    match value:
        case bytes():
            return {"bytes": b64encode(value).decode()}
        case datetime():
            return {"time": count_microseconds(value)}
        case UUID():
            return str(value)
    return value
