"""The records that are sealed: where their rows are, in which order, and what the digest of a row covers.

How it works. A record has keys, integers that rise with the rows: an event's position, or a number from a
sequence. Rows that were written before they were numbered are records of their own, with the microsecond as
key; none is added to them, so they end an hour after the first numbered row, and what is there without a
number later was inserted. The leaf of an event is its position, as 8 bytes, with its digest; that of another
row is the digest of its columns (`contracts.audit.digests`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple

from contracts.audit.digests import digest_event, digest_fields
from contracts.audit.merkle import hash_leaf

encode_key = Struct(">q").pack

LAST_KEY = 2**63 - 1


class Row(NamedTuple):
    """A recorded row, as far as its leaf says it."""

    key: int
    leaf: bytes
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """Rows of one kind.

    Args:
        name: in checkpoints.
        table: with the rows.
        columns: SQL expressions whose values the digest covers, in this order, after the key.
        key: the SQL expression of the key.
        newest: an SQL query for the newest key, which may be of a row that is never committed, and whether
            the record ends with it.
        condition: the rows of the table that belong to the record.
        since: SQL condition that a row's key is above $1.
        until: SQL condition that a row's key is not above $2.
    """

    name: str
    table: str
    columns: Sequence[str]
    key: str = "number"
    newest: str = ""
    condition: str = "number IS NOT NULL"
    since: str = "number > $1"
    until: str = "number <= $2"

    @property
    def first_key(self) -> int:
        """A key below that of any row; microseconds must be those of a year that PostgreSQL knows."""
        return -(2**55) if self.is_static else -(2**63)

    @property
    def is_static(self) -> bool:
        """No row is added to it, and several rows may have one key."""
        return self.key != "number" and self.name != "events"

    def select(self, condition: str = "true") -> str:
        """Return the statement for the rows with keys above $1 up to $2, at most $3, in order of their keys.

        Args:
            condition: a further one.
        """
        columns = ", ".join((f"{self.key} AS key", "recorded_at", *self.columns))
        condition = f"{self.condition} AND {self.since} AND {self.until} AND {condition}"
        return f"SELECT {columns} FROM {self.table} WHERE {condition} ORDER BY key LIMIT $3"  # noqa: S608 - no data

    def build_row(self, values: Sequence[Any]) -> Row:
        """Return a row from the values of its key, its time and its columns."""
        key, recorded_at, *columns = values[: 2 + len(self.columns)]
        return Row(key, hash_leaf(digest_fields(f"{self.name} 1", (key, *columns))), recorded_at)


class _Events(Record):
    """Events: their digests are in their rows, but for those of earlier releases."""

    def build_row(self, values: Sequence[Any]) -> Row:
        position, recorded_at, digest, *event = values[:8]
        if digest is None:
            stream, version, type_name, metadata, data = event
            digest = digest_event(b"", stream, version, type_name, recorded_at, metadata, data)
        return Row(position, hash_leaf(encode_key(position) + digest), recorded_at)


_EVENT_COLUMNS = ("stream", "version", "type", "metadata::text", "data")
_OF_SEQUENCE = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END, false FROM {}"
# Several numbers, since a transaction that was rolled back leaves a gap. Where these rows are removed, so are
# those without a number.
_UNNUMBERED_END = """
SELECT {microseconds}, first IS NOT NULL FROM (
  SELECT (
    SELECT n.recorded_at FROM {table} n WHERE n.number BETWEEN 1 AND 1000 ORDER BY n.number LIMIT 1
  ) AS first, is_called FROM {table}_number
) f, LATERAL (SELECT coalesce(
  first + interval '1 hour', CASE WHEN is_called THEN timestamptz 'epoch' ELSE now() END
) AS recorded_at) e
"""
_MICROSECONDS = "CAST(extract(epoch FROM recorded_at) * 1000000 AS bigint)"
_AFTER = "timestamptz 'epoch' + {} * interval '1 microsecond'"
_AUDIT = (
    *("recorded_at", "caller", "request_id", "type", "outcome", "stream", "on_behalf_of", "correlation_id"),
    *("causation_id", "traceparent", "duration_us::bigint", "request_digest"),
)
_REFUSED_CALLS = ("recorded_at", "method", "reason", "caller", "details::text", "peer", "calls")
_READS = ("recorded_at", "caller", "on_behalf_of", "method", "array_to_json(ids)::text", "trace_id")
_ACTS = (*("recorded_at", "subject", "on_behalf_of", "act", "target", "request::text", "reason", "trace_id"),)


def _list_numbered(name: str, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the record of the numbered rows of a table, and that of the others."""
    yield Record(name, name, columns, newest=_OF_SEQUENCE.format(f"{name}_number"))
    yield Record(
        f"{name}_unnumbered",
        name,
        columns,
        key=_MICROSECONDS,
        newest=_UNNUMBERED_END.format(table=name, microseconds=_MICROSECONDS),
        condition="number IS NULL",
        since=f"recorded_at > {_AFTER.format('$1')}",
        until=f"recorded_at <= {_AFTER.format('$2')}",
    )


EVENTS = _Events(
    "events",
    "events",
    # The columns of events with a digest stay where they are: they would be most of what is read.
    ("digest", *(f"CASE WHEN digest IS NULL THEN {column} END" for column in _EVENT_COLUMNS)),
    key="position",
    newest="SELECT coalesce(max(position), 0), false FROM events",
    condition="true",
    since="position > $1",
    until="position <= $2",
)
READS = Record("reads", "reads", _READS, newest=_OF_SEQUENCE.format("reads_number"))
ACTS = Record(
    "operator_acts",
    "operator_acts",
    _ACTS,
    newest="SELECT coalesce(max(number), 0), false FROM operator_acts",
    condition="true",
)
OUTCOMES = Record(
    "operator_act_outcomes",
    "operator_act_outcomes",
    ("recorded_at", "act", "outcome", "duration_us"),
    newest="SELECT coalesce(max(number), 0), false FROM operator_act_outcomes",
    condition="true",
)
RECORDS = (
    EVENTS,
    *_list_numbered("audit", _AUDIT),
    *_list_numbered("refused_calls", _REFUSED_CALLS),
    READS,
    ACTS,
    OUTCOMES,
)
"""All of them, in the order of a checkpoint."""
TABLES = tuple(dict.fromkeys(record.table for record in RECORDS))
